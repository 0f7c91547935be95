package install

import (
	"fmt"
	"time"
)

// Step is one thing that an installation does.
type Step string

// The steps, in their order.
const (
	StepUse           Step = "use"     // whether volumes are in use; Uninstall only
	StepCluster       Step = "cluster" // which identity it has
	StepConfiguration Step = "configuration"
	StepDriver        Step = "driver"
	StepArray         Step = "array"
	StepHost          Step = "host"
	StepReady         Step = "ready"
)

// State says how a step ended.
type State string

// The states.
const (
	Changed State = "changed"
	OK      State = "ok"      // nothing was to do
	Waiting State = "waiting" // it failed and is tried again
)

// Event is a line of progress.
type Event struct {
	Time         time.Time `json:"time"`
	Step         Step      `json:"step"`
	State        State     `json:"state"`
	Message      string    `json:"message"`
	RetrySeconds float64   `json:"retry_seconds,omitempty"`
}

// String is the event as people read it.
func (e Event) String() string {
	line := fmt.Sprintf("%-13s  %-7s  %s", e.Step, e.State, e.Message)
	if e.State == Waiting {
		line += fmt.Sprintf(" (tries again in %.0f s)", e.RetrySeconds)
	}
	return line
}

// failure is a step that did not succeed.
type failure struct {
	step Step
	err  error
}

// report says that a step is done: once, and again when it changed something or had failed.
func (i *Installer) report(step Step, message string, changed bool) {
	if i.said[step] && !changed {
		return
	}
	if i.said == nil {
		i.said = map[Step]bool{}
	}
	i.said[step] = true
	state := OK
	if changed {
		state = Changed
	}
	i.Report(Event{Time: time.Now(), Step: step, State: state, Message: message})
}

func (i *Installer) reportFailures(failures []failure, pause time.Duration) {
	for _, failure := range failures {
		delete(i.said, failure.step)
		i.Report(Event{Time: time.Now(), Step: failure.step, State: Waiting, Message: failure.err.Error(), RetrySeconds: pause.Seconds()})
	}
	delete(i.said, StepReady)
}
