package faults

import (
	"context"

	"datera-flexvolume/testdata/lab"
)

// What Kubernetes mixes up while a call is unfinished: a name, whether the volume is read, and which name it has.

// madeAnew deletes PersistentVolume and pod and makes both anew, under the same names, for another volume: it must be a
// blank one. Then the name belongs to the former volume again.
func (k *kubelet) madeAnew(ctx context.Context) {
	former, sum := k.volume, k.sum
	k.down(ctx, nodeA)
	k.volume, k.sum = former.With(map[string]string{"volumeID": former.Options["volumeID"] + "-anew"}), ""
	k.others = append(k.others, k.volume)
	k.note("%s is made anew, for %s", k.volume.Name, k.volume.Options["volumeID"])
	before := len(k.formats(ctx))
	if k.up(ctx, nodeA) {
		k.checks++
		if held := k.shell(ctx, k.nodes[nodeA], "ls "+k.podPath()); held != "" {
			k.violated("%s was made anew for a blank volume, which holds %q", k.volume.Name, held)
		}
		k.writeData(ctx, nodeA)
		k.down(ctx, nodeA)
	}
	k.settle(ctx, nodeA)
	k.checkFormats(ctx, before)
	k.otherFormats = len(k.formats(ctx)) - before
	k.volume, k.sum = former, sum
	k.note("%s is made anew, for %s", k.volume.Name, k.volume.Options["volumeID"])
}

// becomeReaders makes the pod one of two that read, on both nodes. While one reads, nobody writes.
func (k *kubelet) becomeReaders(ctx context.Context) {
	k.down(ctx, nodeA)
	if k.sum == "" {
		return // what has no file system cannot be read
	}
	writer := k.volume
	reader := writer.With(map[string]string{"kubernetes.io/readwrite": "ro"})
	for _, node := range []string{nodeA, nodeB} {
		k.as(reader, func() {
			k.note("a reader comes to %s", node)
			if !k.up(ctx, node) {
				return
			}
			k.checkData(ctx, node)
			k.checks++
			if said := k.shell(ctx, k.nodes[node], "touch "+k.podPath()+"/data 2>/dev/null && echo written || :"); said != "" {
				k.violated("a reader on %s can write", node)
			}
		})
		if node == nodeA {
			k.note("a writer comes to %s", nodeB)
			k.checks++
			if k.once(ctx, nodeB, verbs(k.mode)[0]) && !k.over() {
				k.violated("%s may write to what %s reads", nodeB, node)
			}
		}
	}
	k.as(reader, func() {
		k.down(ctx, nodeA)
		k.down(ctx, nodeB)
	})
}

// comeUnderAnotherName lets a second PersistentVolume lead to the volume, for a pod on the other node.
func (k *kubelet) comeUnderAnotherName(ctx context.Context) {
	alias := k.volume.With(map[string]string{"kubernetes.io/pvOrVolumeName": k.volume.Name + "-alias"})
	alias.Name = k.volume.Name + "-alias"
	has := false
	k.as(alias, func() {
		k.note("%s comes to %s for the same volume", alias.Name, nodeB)
		has = k.once(ctx, nodeB, verbs(k.mode)[0])
		k.checkAccess(ctx)
	})
	if !has {
		k.down(ctx, nodeA)
		k.settle(ctx, nodeA)
	}
	k.as(alias, func() {
		if k.up(ctx, nodeB) {
			k.checkAccess(ctx)
			k.checkData(ctx, nodeB)
			k.down(ctx, nodeB)
		}
	})
}

// as makes calls for another PersistentVolume.
func (k *kubelet) as(volume lab.Volume, calls func()) {
	former := k.volume
	k.volume = volume
	calls()
	k.volume = former
}
