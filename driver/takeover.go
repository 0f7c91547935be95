package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cenkalti/backoff/v5"
)

// In attach mode none nobody but the nodes themselves guards a volume. A node that is gone cannot say so: who has a grant
// and no session loses the grant to the next that asks, which also keeps him from coming back.
//
// A node that is just about to log in has no session either. So each makes itself seen before it looks at the other: who
// wants the grant joins the group and then looks for sessions (takeOver); who has logged in then looks whether he is alone
// in the group (stillGranted). One of them sees the other, whatever the order, and only one goes on.

// takeOver deals with rivals. Where Kubernetes guards the volume they stand.
func (g grant) takeOver(ctx context.Context, state grantState, rivals []string) (grantState, error) {
	if g.driver.Config.Attach != AttachNone {
		return state, g.refusal(ctx, rivals)
	}
	if active, err := g.active(ctx, rivals); err != nil || len(active) > 0 {
		return state, errors.Join(err, g.refusalUnlessEmpty(ctx, active))
	}
	if err := g.announce(ctx, state, rivals); err != nil {
		return state, err
	}
	for _, rival := range rivals {
		if err := g.driver.revoke(ctx, g.array, g.volume.Name, rival, state); err != nil {
			return state, errors.Join(err, g.restore(ctx, rivals, state))
		}
	}
	// Who has come all the same was there first.
	active, err := g.active(ctx, rivals)
	if err != nil {
		return state, errors.Join(err, g.restore(ctx, rivals, state))
	}
	if len(active) > 0 {
		return state, errors.Join(g.refusal(ctx, active), g.restore(ctx, active, state))
	}
	g.driver.Log.WarnContext(ctx, "took the volume over from nodes without a session",
		"volume", g.volume.AppInstance, "from", rivals, "to", g.iqn)
	state.members = slices.DeleteFunc(slices.Clone(state.members), func(iqn string) bool { return slices.Contains(rivals, iqn) })
	return state, nil
}

// restore undoes revoke, also when the call's time is up. The list of readers comes first, so that nobody takes a reader for
// a writer.
func (g grant) restore(ctx context.Context, iqns []string, before grantState) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	var errs []error
	for _, iqn := range iqns {
		var err error
		if before.readsOnly(iqn) {
			_, err = g.array.AddMember(ctx, g.readers(), iqn)
		}
		if err == nil {
			_, err = g.array.AddMember(ctx, g.group(), iqn)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("give the access of %s to volume %s on %s back: %w", iqn, g.volume.AppInstance, g.array.Server(), err))
		}
	}
	return errors.Join(errs...)
}

// announce joins the group beside the rivals, and backs out when one of them has a session by now, or another node came.
func (g grant) announce(ctx context.Context, state grantState, rivals []string) error {
	if err := g.noteAccess(ctx, state); err != nil {
		return err
	}
	group, err := g.array.AddMember(ctx, g.group(), g.iqn)
	if err != nil {
		return fmt.Errorf("give node %s access to volume %s on %s: %w", g.node, g.volume.AppInstance, g.array.Server(), err)
	}
	after := grantState{members: group.Members, readers: state.readers}
	inTheWay := slices.DeleteFunc(after.rivals(g.iqn, g.volume.ReadOnly), func(iqn string) bool { return slices.Contains(rivals, iqn) })
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
		if !slices.Contains(state.members, g.iqn) {
			rivals = nil
			return false, backoff.Permanent(fmt.Errorf("volume %s was taken over by another node while this one logged in: "+
				"kubelet tries again, and is refused until the pod there is gone", g.volume.AppInstance))
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
