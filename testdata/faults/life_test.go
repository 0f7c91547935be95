package faults

import (
	"context"
	"fmt"
	"slices"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/faults/trace"
	"datera-flexvolume/testdata/lab"
)

// life is that of one volume: it is made, used on one node, used on the other, and deleted, with faults on the way.
type life struct {
	*kubelet
	plan plan
	met  map[fault]trace.Point // where the faults hit that were tried; the zero value beyond the call's last point
}

func newLife(p *place, number int, planned plan) *life {
	name := fmt.Sprintf("pv-%d", number)
	volume := lab.SeedVolume().With(map[string]string{
		"kubernetes.io/pvOrVolumeName": name, "volumeID": "faults-" + name, "size": "1", "replica": "1",
	})
	volume.Name = name
	return &life{plan: planned, met: map[fault]trace.Point{}, kubelet: &kubelet{place: p, mode: planned.mode, volume: volume}}
}

// lead leads the life. What went wrong is in violations, and in err if it was the machines' fault.
func (l *life) lead(ctx context.Context) {
	l.prepare(ctx)
	for _, verb := range verbs(l.mode) {
		if l.over() {
			break
		}
		if end := l.step(ctx, verb); end {
			break
		}
		if verb == "mount" && !l.over() {
			l.writeData(ctx, nodeA)
			l.checkFence(ctx)
		}
	}
	l.finish(ctx)
}

// prepare makes the machines forget earlier lives: the session keys, too.
func (l *life) prepare(ctx context.Context) {
	l.err = l.configure(ctx, l.mode)
	for _, m := range l.machines() {
		l.shell(ctx, m, "cd /run/datera-iscsi 2>/dev/null && rm -f lock/* session/* intents/*; rm -f "+mkfsLog+" "+logDir+"/*")
	}
}

// step makes one call on the first node, with its fault if there is one, and then what follows.
func (l *life) step(ctx context.Context, verb string) (end bool) {
	index := slices.IndexFunc(l.plan.faults, func(f fault) bool { return f.verb == verb })
	if index < 0 || !l.needed(ctx, nodeA, verb) {
		l.insist(ctx, nodeA, verb)
		return false
	}
	f := l.plan.faults[index]
	o := l.call(ctx, nodeA, verb, trace.Fault{At: f.at, Do: f.do}, func() { l.overtake(ctx) })
	l.met[f] = trace.Point{}
	if o.report.Hit {
		l.met[f] = o.report.Points[f.at-1]
	}
	l.tidy(ctx, nodeA, verb)
	l.checkAccess(ctx)
	switch f.then {
	case again:
		if o.reply.Status != driver.Success {
			l.insist(ctx, nodeA, verb)
		}
		return false
	case move:
		l.move(ctx)
	case reboot, lost:
		l.reboot(ctx, nodeA, f.then == lost)
		l.up(ctx, nodeA)
		l.checkData(ctx, nodeA)
	case rebootMove, lostMove:
		l.reboot(ctx, nodeA, f.then == lostMove)
		l.move(ctx)
	case anew:
		l.madeAnew(ctx)
	case readers:
		l.becomeReaders(ctx)
	case alias:
		l.comeUnderAnotherName(ctx)
	}
	return true
}

// finish takes the volume from wherever it is, proves on the other node that its data is there, and wants nothing left.
func (l *life) finish(ctx context.Context) {
	l.down(ctx, nodeA)
	l.down(ctx, nodeB)
	l.settle(ctx, nodeA)
	l.checkAccess(ctx)
	if l.up(ctx, nodeB) {
		l.checkData(ctx, nodeB)
		l.down(ctx, nodeB)
	}
	l.settle(ctx, nodeB)
	if l.halfMade {
		l.giveUp(ctx)
	}
	left := map[string][]string{nodeA: l.leftOn(ctx, nodeA), nodeB: l.leftOn(ctx, nodeB)}
	// In mode controller no call tells a node of a pod that was deleted before mountdevice: what is left there goes when
	// the volume comes once more (README, Limits).
	if l.cutBeforeMount() && len(left[nodeA]) > 0 && l.up(ctx, nodeA) && l.down(ctx, nodeA) {
		left[nodeA] = l.leftOn(ctx, nodeA)
	}
	l.checkFormats(ctx, l.otherFormats)
	l.checkNothingLeft(ctx, left)
}

func (l *life) cutBeforeMount() bool {
	last := fault{}
	if n := len(l.plan.faults); n > 0 {
		last = l.plan.faults[n-1]
	}
	return l.mode == driver.AttachController && last.then != again && (last.verb == "waitforattach" || last.verb == "mountdevice")
}
