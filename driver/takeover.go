package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// In attach mode none nobody but the nodes themselves guards a volume. A node that is gone cannot say so: who has a grant
// and no session loses the grant to the next that asks, which also keeps him from coming back.
//
// A node that is just about to log in has no session either. So each makes itself seen before it looks at the other: who
// wants the grant joins the group and then looks for sessions (takeOver); who has logged in then looks whether he is alone
// in the group (stillGranted). One of them sees the other, whatever the order, and only one goes on.
//
// A node that is taking over has no session either. Were it taken over itself, by the node whose grant it is about to take,
// it would take that from one that has logged in: the array knows no change that depends on what was there before. So a
// take-over is over soon or never (takeOverTime), and nobody is taken over before he was watched for longer than that
// (watchTime). What a killed call left of the node's own is no announcement: it is taken back first.

// watchTime is how long a node must be seen to have a grant and no session before another one takes the grant over.
const watchTime = 5 * time.Second

// takeOverTime bounds a take-over from the announcement to the last look. A request may arrive for requestTime after it was
// given up; until then the announcement stands. Both together are less than watchTime.
func (d *Driver) watchTime() time.Duration    { return cmp.Or(d.watch, watchTime) }
func (d *Driver) takeOverTime() time.Duration { return d.watchTime() * 3 / 5 }
func (d *Driver) requestTime() time.Duration  { return d.watchTime() / 5 }

// outlastRequests waits until no request can arrive any more that was given up, also when the call's time is up.
func (d *Driver) outlastRequests() { _ = pause(context.Background(), d.requestTime()) }

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// takeOver deals with rivals. Where Kubernetes guards the volume they stand.
func (g grant) takeOver(ctx context.Context, state grantState, rivals []string) (grantState, error) {
	if g.driver.Config.Attach != AttachNone {
		return state, g.refusal(ctx, rivals)
	}
	if active, err := g.active(ctx, rivals); err != nil || len(active) > 0 {
		return state, errors.Join(err, g.refusalUnlessEmpty(ctx, active))
	}
	if err := g.takeBack(ctx, state); err != nil {
		return state, err
	}
	watched, rivals, err := g.watch(ctx, rivals)
	watched.vacant, watched.members = state.vacant, without(watched.members, []string{g.iqn})
	if err != nil || len(rivals) == 0 {
		return watched, err
	}
	return g.takeOverFrom(ctx, watched, rivals)
}

// takeBack takes back what a call left that was killed, once none of its requests can be on the way any more.
func (g grant) takeBack(ctx context.Context, state grantState) error {
	if !slices.Contains(state.all(), g.iqn) {
		return nil
	}
	g.driver.outlastRequests()
	return g.driver.revoke(ctx, g.array, g.volume.Name, g.iqn, state)
}

// watch returns those rivals that have kept their grants without a session all the time, and who holds the volume then.
func (g grant) watch(ctx context.Context, rivals []string) (grantState, []string, error) {
	began := time.Now()
	seen := began
	for {
		over := time.Since(began) >= g.driver.watchTime()
		state, err := g.state(ctx, nil)
		if err != nil {
			return state, nil, err
		}
		now := state.rivals(g.iqn, g.volume.ReadOnly)
		if came := without(now, rivals); len(came) > 0 {
			return state, nil, g.refusal(ctx, came)
		}
		if active, err := g.active(ctx, now); err != nil || len(active) > 0 {
			return state, nil, errors.Join(err, g.refusalUnlessEmpty(ctx, active))
		}
		if time.Since(seen) >= g.driver.watchTime() { // they may have gone and come back
			began, over = time.Now(), false
		}
		if rivals, seen = now, time.Now(); over || len(rivals) == 0 {
			return state, rivals, nil
		}
		if err := pause(ctx, g.driver.watchTime()/5); err != nil {
			return state, nil, fmt.Errorf("watch on %s whether %s, which has no session, comes back to volume %s: %w",
				g.array.Server(), strings.Join(rivals, ", "), g.volume.AppInstance, err)
		}
	}
}

// takeOverFrom takes the grants of rivals that have been watched. What it took it never gives back: somebody else may have
// come. Who has logged in at the same time notices it (stillGranted) and tries again.
func (g grant) takeOverFrom(ctx context.Context, state grantState, rivals []string) (grantState, error) {
	if err := g.noteAccess(ctx, state); err != nil {
		return state, err
	}
	soon, cancel := context.WithTimeout(ctx, g.driver.takeOverTime())
	defer cancel()
	if err := g.fence(soon, state, rivals); err != nil {
		if soon.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("take volume %s over from %s, which must be done in %s and is tried again: %w",
				g.volume.AppInstance, strings.Join(rivals, ", "), g.driver.takeOverTime(), err)
		}
		return state, err
	}
	g.driver.Log.WarnContext(ctx, "took the volume over from nodes without a session",
		"volume", g.volume.AppInstance, "from", rivals, "to", g.iqn)
	state.members = without(state.members, rivals)
	return state, nil
}

// fence takes the rivals' grants, announced beforehand.
func (g grant) fence(ctx context.Context, state grantState, rivals []string) error {
	if err := g.announce(ctx, state, rivals); err != nil {
		if ctx.Err() != nil {
			g.driver.outlastRequests()
		}
		return err
	}
	for _, rival := range rivals {
		if err := g.driver.revoke(ctx, g.array, g.volume.Name, rival, state); err != nil {
			g.driver.outlastRequests()
			return err
		}
	}
	// An array may let sessions go on for a moment.
	active, err := g.active(ctx, rivals)
	return errors.Join(err, g.refusalUnlessEmpty(ctx, active))
}

// announce joins the group beside the rivals, and backs out when one of them has a session by now, or another node came.
func (g grant) announce(ctx context.Context, state grantState, rivals []string) error {
	group, err := g.array.AddMember(ctx, g.group(), g.iqn)
	if err != nil {
		return fmt.Errorf("give node %s access to volume %s on %s: %w", g.node, g.volume.AppInstance, g.array.Server(), err)
	}
	after := grantState{members: group.Members, readers: state.readers}
	inTheWay := without(after.rivals(g.iqn, g.volume.ReadOnly), rivals)
	if len(inTheWay) == 0 {
		if inTheWay, err = g.active(ctx, rivals); err != nil {
			return err
		}
	}
	if len(inTheWay) > 0 {
		return g.refusal(ctx, inTheWay)
	}
	return nil
}

// active are those of iqns that have a session now.
func (g grant) active(ctx context.Context, iqns []string) ([]string, error) {
	ai, err := g.array.AppInstance(ctx, g.volume.AppInstance)
	if err != nil {
		return nil, fmt.Errorf("ask %s who uses volume %s: %w", g.array.Server(), g.volume.AppInstance, err)
	}
	instance, err := ai.StorageInstance()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(iqns), func(iqn string) bool { return !slices.Contains(instance.ActiveInitiators, iqn) }), nil
}

func (g grant) refusalUnlessEmpty(ctx context.Context, rivals []string) error {
	if len(rivals) == 0 {
		return nil
	}
	return g.refusal(ctx, rivals)
}

// stillGranted makes sure, after the login, that nobody has taken the grant over since it was given. Who is about to do so
// sees the session now and goes, which is waited for.
func (g grant) stillGranted(ctx context.Context) error {
	patient, cancel := context.WithTimeout(ctx, sessionEnd)
	defer cancel()
	var rivals []string
	_, err := backoff.Retry(patient, func() (bool, error) {
		state, _, err := g.driver.lookForGrant(patient, g.array, g.volume.Name)
		if err != nil {
			return false, backoff.Permanent(err)
		}
		rivals = nil
		if !slices.Contains(state.members, g.iqn) {
			return false, backoff.Permanent(fmt.Errorf("volume %s was taken over by another node while this one logged in: "+
				"kubelet tries again, and is refused as long as that one has it", g.volume.AppInstance))
		}
		if state.readsOnly(g.iqn) != g.volume.ReadOnly {
			return false, backoff.Permanent(fmt.Errorf("volume %s is noted on %s as attached to node %s with another access than this pod's: it is tried again",
				g.volume.AppInstance, g.array.Server(), g.node))
		}
		if rivals = state.rivals(g.iqn, g.volume.ReadOnly); len(rivals) > 0 {
			return false, errors.New("another node asks for it")
		}
		return true, nil
	}, backoff.WithBackOff(pace(sessionEnd/10)), backoff.WithMaxElapsedTime(0))
	if len(rivals) > 0 {
		return g.refusal(ctx, rivals)
	}
	return err
}
