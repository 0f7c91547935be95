package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"datera-flexvolume/testdata/cluster"
)

// podLimit is for a pod to start or to go: emulated nodes are slow.
const podLimit = 2 * time.Minute

// pod is what the story wants to know of one.
type pod struct {
	name, node, uid, container string
	restarts                   int
}

// look reads a pod.
func (s *story) look(name string) (pod, error) {
	var object struct {
		Metadata struct {
			UID      string  `json:"uid"`
			Deletion *string `json:"deletionTimestamp"`
		} `json:"metadata"`
		Spec struct {
			Node string `json:"nodeName"`
		} `json:"spec"`
		Status struct {
			Phase      string `json:"phase"`
			Containers []struct {
				ID       string `json:"containerID"`
				Ready    bool   `json:"ready"`
				Restarts int    `json:"restartCount"`
			} `json:"containerStatuses"`
		} `json:"status"`
	}
	output, err := s.cluster.Control.Kubectl(s.ctx, "", "get", "pod", name, "-o", "json")
	if err != nil {
		return pod{}, err
	}
	if err := json.Unmarshal([]byte(output), &object); err != nil {
		return pod{}, err
	}
	p := pod{name: name, node: object.Spec.Node, uid: object.Metadata.UID}
	if object.Metadata.Deletion != nil {
		return p, fmt.Errorf("pod %s is being deleted", name)
	}
	if object.Status.Phase != "Running" || len(object.Status.Containers) != 1 || !object.Status.Containers[0].Ready {
		return p, fmt.Errorf("pod %s is %s", name, object.Status.Phase)
	}
	p.container = strings.TrimPrefix(object.Status.Containers[0].ID, "containerd://")
	p.restarts = object.Status.Containers[0].Restarts
	return p, nil
}

// running waits until a pod runs; except names pods that it must not be, as one that was deleted and comes back.
func (s *story) running(name string, except ...pod) pod {
	var found pod
	s.until(podLimit, "pod "+name+" runs", func() (err error) {
		if found, err = s.look(name); err != nil {
			return err
		}
		for _, old := range except {
			if old.uid == found.uid {
				return fmt.Errorf("pod %s still is the old one", name)
			}
		}
		return nil
	})
	return found
}

// untouched wants a pod to run on as if nothing had happened.
func (s *story) untouched(before pod) {
	if s.err != nil {
		return
	}
	after, err := s.look(before.name)
	s.check(err == nil && after == before, "pod %s was disturbed: it was %+v and is %+v (%v)", before.name, before, after, err)
}

// deletePods deletes pods and waits until they are gone.
func (s *story) deletePods(names ...string) {
	s.kubectl(append([]string{"delete", "pod", "--wait=true", "--timeout=180s"}, names...)...)
}

// tryInPod runs a shell script in a pod's container, past the API server: it cannot reach the machines' kubelets.
func (s *story) tryInPod(p pod, script string) (string, error) {
	s.execs++
	return s.cluster.Nodes[p.node].Script(s.ctx, fmt.Sprintf("ctr -n k8s.io tasks exec --exec-id story-%d %s sh -c %s",
		s.execs, p.container, "'"+strings.ReplaceAll(script, "'", `'\''`)+"'"))
}

// inPod is tryInPod of what must succeed.
func (s *story) inPod(p pod, script string) string {
	if s.err != nil {
		return ""
	}
	output, err := s.tryInPod(p, "set -e; "+script)
	if err != nil {
		s.fail("in pod %s: %w", p.name, err)
	}
	return output
}

// refusedInPod wants a script to fail in a pod, and returns the last line that it said.
func (s *story) refusedInPod(p pod, script string) string {
	if s.err != nil {
		return ""
	}
	_, err := s.tryInPod(p, script)
	var refused *cluster.ScriptError
	s.check(errors.As(err, &refused), "%q in pod %s on %s was not refused (%v)", script, p.name, p.node, err)
	if refused == nil {
		return ""
	}
	return refused.Output
}

// writeData writes 4 MiB of noise into a pod's volume and returns their checksum.
func (s *story) writeData(p pod) string {
	sum := s.inPod(p, "dd if=/dev/urandom of=/data/noise bs=1M count=4 2>/dev/null; sync; sha256sum </data/noise")
	return strings.Fields(sum + " -")[0]
}

// readsData wants a pod to find in its volume what was written.
func (s *story) readsData(p pod, want string) {
	got := s.inPod(p, "sha256sum </data/noise")
	s.same(want, strings.Fields(got + " -")[0], "the data of pod "+p.name+" on "+p.node)
	s.say(fmt.Sprintf("%s on %s reads sha256 %.16s…: its data is there", p.name, p.node, want))
}

// mountOf is the line of /data in the mount table of a pod's container.
func (s *story) mountOf(p pod) string {
	return s.inPod(p, "while read -r line; do case $line in *' /data '*) echo \"$line\";; esac; done </proc/mounts")
}
