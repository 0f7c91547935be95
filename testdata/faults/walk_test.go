// Package faults breaks the driver off at every step that changes the world, on real iSCSI, plays what kubelet does next,
// and looks at what must never happen.
package faults

import (
	"flag"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	all      = flag.Bool("all", false, "walk every point, not a sample")
	duration = flag.Duration("for", 40*time.Second, "how long a sample is walked")
	seed     = flag.Uint64("seed", uint64(time.Now().UnixNano())%10000, "of the sample")
	labs     = flag.Int("labs", 1, "how many arrays with their nodes there are")
	one      = flag.String("life", "", "lead this life only, as a violation prints it")
	bin      = flag.String("bin", "../../bin", "folder of iscsi and datera-sim")
)

func TestWalk(t *testing.T) {
	walk := newTally()
	switch {
	case *one != "":
		p, err := parsePlan(*one)
		require.NoError(t, err)
		walk.planner = &single{&p}
	case *all:
		walk.planner = newEverything(*seed)
	default:
		walk.planner = newSample(*seed)
		walk.limit = *duration
	}
	t.Logf("seed %d", *seed)
	tracerBinary, err := buildTracer(t.TempDir())
	require.NoError(t, err)
	begin := time.Now()
	var group sync.WaitGroup
	for range *labs {
		group.Go(func() {
			if err := work(t, walk, tracerBinary); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	t.Logf("%s%s", walk, time.Since(begin).Round(time.Second))
	require.NotZero(t, walk.lives)
}

// work leads lives in a place of its own, one after the other.
func work(t *testing.T, walk *tally, tracerBinary string) error {
	p, err := newPlace(t.Context(), *bin, tracerBinary)
	if err != nil {
		return err
	}
	defer func() { p.stop() }()
	for {
		number, planned, ok := walk.next()
		if !ok {
			return nil
		}
		begin := time.Now()
		l := newLife(p, number, planned)
		l.lead(t.Context())
		walk.add(l)
		if wrong := append(l.violations, errorText(l.err)...); len(wrong) > 0 {
			t.Errorf("%s\nin -life %q\n%s", strings.Join(wrong, "\n"), planned, strings.Join(l.trail, "\n"))
			p.stop() // who knows what is left
			if p, err = newPlace(t.Context(), *bin, tracerBinary); err != nil {
				return err
			}
		}
		if testing.Verbose() {
			t.Logf("%d, %.1f s: %s", number, time.Since(begin).Seconds(), planned)
		}
	}
}

func errorText(err error) []string {
	if err == nil {
		return nil
	}
	return []string{"the machines: " + err.Error()}
}
