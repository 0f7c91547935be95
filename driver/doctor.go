package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"datera-flexvolume/datera"
)

// Level says how bad a finding is.
type Level string

// The levels of a finding.
const (
	LevelOK      Level = "ok"
	LevelWarning Level = "warning" // it works, but not as it should
	LevelProblem Level = "problem" // volumes do not work, or will not after the next change
)

// Finding is what one check of Doctor found.
type Finding struct {
	Check   string `json:"check"`
	Level   Level  `json:"level"`
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"` // what to do about it, where the message does not say
}

func fine(format string, args ...any) []Finding {
	return []Finding{{Level: LevelOK, Message: fmt.Sprintf(format, args...)}}
}

func warning(remedy, format string, args ...any) Finding {
	return Finding{Level: LevelWarning, Message: fmt.Sprintf(format, args...), Remedy: remedy}
}

func problem(remedy, format string, args ...any) Finding {
	return Finding{Level: LevelProblem, Message: fmt.Sprintf(format, args...), Remedy: remedy}
}

// Limits of the checks. What they share, the array's answers, must come before the time of the check is up.
const (
	checkTime = 15 * time.Second
	arrayTime = 10 * time.Second
)

// check is one question of Doctor's. It has at least one finding.
type check struct {
	name string
	run  func(ctx context.Context) []Finding
}

// examination is one run of Doctor.
type examination struct {
	*Operator

	// What several checks need is found out once.
	probe  func() (ArrayProbe, error)
	about  func() (datera.About, error)
	known  func() (*datera.Initiator, error) // by this node's IQN
	byName func() (*datera.Initiator, error) // by this node's name
}

// Doctor looks for what is wrong with this node. It changes nothing. All checks run at the same time, each within a
// limit, so that one that hangs does not hide the others; the findings come in a fixed order.
func (o *Operator) Doctor(ctx context.Context) []Finding {
	return o.examine(ctx).run(ctx)
}

func (o *Operator) examine(ctx context.Context) *examination {
	e := &examination{Operator: o}
	e.probe = sync.OnceValues(e.openProbe)
	e.about = sync.OnceValues(func() (datera.About, error) {
		return askArray(ctx, e.probe, func(ctx context.Context, array ArrayProbe) (datera.About, error) { return array.About(ctx) })
	})
	e.known = sync.OnceValues(func() (*datera.Initiator, error) {
		iqn, err := o.Initiator.Name()
		if err != nil {
			return nil, err
		}
		return askArray(ctx, e.probe, func(ctx context.Context, array ArrayProbe) (*datera.Initiator, error) {
			return array.Initiator(ctx, iqn)
		})
	})
	e.byName = sync.OnceValues(func() (*datera.Initiator, error) {
		node, err := o.Config.NodeName()
		if err != nil {
			return nil, err
		}
		name := InitiatorName(o.Config.Cluster, node)
		return askArray(ctx, e.probe, func(ctx context.Context, array ArrayProbe) (*datera.Initiator, error) {
			return array.InitiatorByName(ctx, name)
		})
	})
	return e
}

func askArray[T any](ctx context.Context, probe func() (ArrayProbe, error), ask func(context.Context, ArrayProbe) (T, error)) (T, error) {
	array, err := probe()
	if err != nil {
		var none T
		return none, err
	}
	ctx, cancel := context.WithTimeout(ctx, arrayTime)
	defer cancel()
	return ask(ctx, array)
}

// checks are in the order of the way from this node to its volumes.
func (e *examination) checks() []check {
	return []check{
		{"configuration", e.configuration},
		{"cluster", e.cluster},
		{"programs", e.programs},
		{"kernel modules", e.modules},
		{"open-iscsi", e.openISCSI},
		{"iscsid", e.iscsid},
		{"initiator name", e.initiatorName},
		{"node records", e.nodeRecords},
		{"record lock", e.recordLock},
		{"multipath", e.multipath},
		{"driver folder", e.driverFolder},
		{"state folders", e.stateFolders},
		{"array", e.array},
		{"credentials", e.credentials},
		{"clock", e.clock},
		{"registration", e.registration},
		{"claims", e.claims},
		{"portals", e.portals},
		{"volumes", e.volumes},
		{"directories", e.directories},
		{"leftovers", e.leftovers},
	}
}

func (e *examination) run(ctx context.Context) []Finding {
	checks := e.checks()
	results := make([][]Finding, len(checks))
	var group sync.WaitGroup
	for i, check := range checks {
		group.Go(func() { results[i] = e.inTime(ctx, check) })
	}
	group.Wait()
	return slices.Concat(results...)
}

// inTime runs a check and leaves it to itself when it takes too long.
func (e *examination) inTime(ctx context.Context, check check) []Finding {
	limit, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	answer := make(chan []Finding, 1)
	go func() {
		var found []Finding
		if err := e.guarded(ctx, func() error { found = check.run(limit); return nil }); err != nil {
			found = []Finding{problem("", "%v", err)}
		}
		answer <- found
	}()
	var found []Finding
	select {
	case found = <-answer:
	case <-limit.Done():
		found = []Finding{problem("find out what hangs: look at dmesg and at processes in state D", "the check did not end: %v", context.Cause(limit))}
	}
	for i := range found {
		found[i].Check, found[i].Message, found[i].Remedy = check.name, oneLine(found[i].Message), oneLine(found[i].Remedy)
	}
	return found
}

// Well tells whether nothing was found to be wrong.
func Well(findings []Finding) bool {
	return !slices.ContainsFunc(findings, func(f Finding) bool { return f.Level != LevelOK })
}

// WriteFindings prints one line for each.
func WriteFindings(w io.Writer, findings []Finding) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range findings {
		text := f.Message
		if f.Remedy != "" {
			text += "; to do: " + f.Remedy
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", f.Level, f.Check, text)
	}
	return table.Flush()
}

// errNoProbe is why the array is not asked.
var errNoProbe = errors.New("the array is not asked")

func (e *examination) openProbe() (ArrayProbe, error) {
	if e.ConfigError != nil {
		return nil, fmt.Errorf("%w: the configuration cannot be used", errNoProbe)
	}
	connection, err := e.Config.connectionFor(Volume{})
	if err != nil {
		return nil, fmt.Errorf("%w: this node has no credentials for it", errNoProbe)
	}
	return e.OpenProbe(connection.Scheme, connection.Credentials, e.Config.Tenant)
}
