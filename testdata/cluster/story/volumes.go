package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"datera-flexvolume/datera"
	"datera-flexvolume/testdata/lab"
)

// volumeOf is the name of the PersistentVolume to which a claim is bound.
func (s *story) volumeOf(claim string) string {
	var name string
	s.until(time.Minute, "claim "+claim+" is bound", func() (err error) {
		name, err = s.cluster.Control.Kubectl(s.ctx, "", "get", "pvc", claim, "-o", "jsonpath={.spec.volumeName}")
		if err == nil && name == "" {
			err = errors.New("it is pending")
		}
		return err
	})
	return name
}

// onArray reads the volume of a PersistentVolume from the array.
func (s *story) onArray(volume string) *datera.AppInstance {
	if s.err != nil {
		return nil
	}
	instance, err := s.array.AppInstance(s.ctx, appInstance(volume))
	if err != nil {
		s.fail("volume %s on the array: %w", volume, err)
	}
	return instance
}

// appInstance is the name on the array: as the manifests say it, or as the provisioner derives it.
func appInstance(volume string) string {
	if strings.HasPrefix(volume, "pvc-") {
		return "k8s_kubernetes_" + volume
	}
	return "kube-" + volume
}

// notOnArray wants a volume not to have been made yet.
func (s *story) notOnArray(volume string) {
	if s.err != nil {
		return
	}
	_, err := s.array.AppInstance(s.ctx, appInstance(volume))
	s.check(datera.IsNotFound(err), "volume %s is on the array already (%v)", volume, err)
}

// provisioned wants a volume to be on the array as its manifest says.
func (s *story) provisioned(volume string, gib int64, replicas int) {
	instance := s.onArray(volume)
	if s.err != nil {
		return
	}
	disk, err := instance.Volume()
	if err != nil {
		s.fail("volume %s on the array: %w", volume, err)
		return
	}
	s.check(disk.SizeGiB == gib && disk.ReplicaCount == replicas, "volume %s has %d GiB and %d replicas on the array, not %d and %d",
		volume, disk.SizeGiB, disk.ReplicaCount, gib, replicas)
	s.say(fmt.Sprintf("array: %s, %d GiB, %d replicas", instance.Name, disk.SizeGiB, disk.ReplicaCount))
}

// target is the IQN of a volume.
func (s *story) target(volume string) string {
	instance := s.onArray(volume)
	if s.err != nil {
		return ""
	}
	storage, err := instance.StorageInstance()
	if err != nil {
		s.fail("volume %s on the array: %w", volume, err)
		return ""
	}
	return storage.Access.IQN
}

// heldBy wants exactly these nodes to be allowed to reach a volume.
func (s *story) heldBy(volume string, nodes ...string) {
	if s.err != nil {
		return
	}
	want := make([]string, 0, len(nodes))
	for _, node := range nodes {
		want = append(want, s.cluster.Nodes[node].InitiatorName())
	}
	s.until(podLimit, fmt.Sprintf("volume %s is given to %v alone", volume, nodes), func() error {
		groups, err := s.array.InitiatorGroupsContaining(s.ctx, "_rw_"+volume[:min(len(volume), 31)])
		if err != nil {
			return err
		}
		var members []string
		for _, group := range groups {
			members = append(members, group.Members...)
		}
		if got := strings.Join(members, " "); got != strings.Join(want, " ") {
			return fmt.Errorf("its members are %q", got)
		}
		return nil
	})
}

// forgotten wants nothing of a volume to be left on a node: no session, disk, node record, mount, directory, journal.
func (s *story) forgotten(volume, node string) {
	iqn := s.target(volume)
	script := fmt.Sprintf(`
		grep -l -x '%[1]s' /sys/class/iscsi_session/session*/targetname 2>/dev/null | sed 's/^/session /' || :
		ls -d /etc/iscsi/nodes/%[1]s 2>/dev/null | sed 's/^/record /' || :
		ls /dev/disk/by-path/ 2>/dev/null | grep -F '%[1]s' | sed 's/^/disk /' || :
		grep '/%[2]s ' /proc/mounts | sed 's/^/mount /' || :
		ls -d /var/lib/kubelet/pods/*/volumes/datera~iscsi/%[2]s /var/lib/kubelet/plugins/kubernetes.io/flexvolume/datera/iscsi/mounts/%[2]s 2>/dev/null | sed 's/^/directory /' || :
		ls /var/lib/datera-iscsi/*/%[2]s.json 2>/dev/null | sed 's/^/journal /' || :`, iqn, volume)
	s.until(podLimit, fmt.Sprintf("nothing of %s is left on %s", volume, node), func() error {
		left, err := s.cluster.Nodes[node].Script(s.ctx, script)
		if err == nil && left != "" {
			err = errors.New(strings.ReplaceAll(left, "\n", "; "))
		}
		return err
	})
	s.say(fmt.Sprintf("%s: no session, disk, node record, mount, directory or journal of %s is left", node, volume))
}

// clean wants a node to hold nothing of any volume.
func (s *story) clean(node string) {
	s.until(podLimit, node+" is clean", func() error {
		left, err := s.cluster.Nodes[node].Script(s.ctx, `
			ls -d /sys/class/iscsi_session/session* 2>/dev/null || :
			find /etc/iscsi/nodes /var/lib/datera-iscsi -type f
			lsscsi
			grep -E 'datera|/dev/sd' /proc/mounts | grep -v '/dev/vda' || :
			find /var/lib/kubelet/pods -maxdepth 4 -path '*datera~iscsi/*' 2>/dev/null || :`)
		if err == nil && left != "" {
			err = errors.New(strings.ReplaceAll(left, "\n", "; "))
		}
		return err
	})
	s.say(node + ": no session, disk, node record, mount, directory or journal of any volume is left")
}

// persistentVolume is a manifest as the seed's, of another size and class.
func persistentVolume(name string, gib int, class string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: PersistentVolume
metadata:
  name: %[1]s
spec:
  capacity:
    storage: %[2]dGi
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: %[3]q
  flexVolume:
    driver: datera/iscsi
    fsType: xfs
    options:
      volumeID: %[4]s
      size: "%[2]d"
      replica: "3"
      backstoreServer: %[5]s
`, name, gib, class, appInstance(name), lab.ArrayAddress)
}

// claim is a claim of the PersistentVolume of the same name.
func claim(name string, gib int, class string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: %[1]s
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: %[3]q
  volumeName: %[1]s
  resources:
    requests:
      storage: %[2]dGi
`, name, gib, class)
}
