package driver

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

const (
	// graceTime is how long a call may go on after it was told to stop. kubelet panics when
	// waitforattach lives ten seconds beyond its SIGTERM.
	graceTime = 8 * time.Second
	// undoTime bounds what a failing call takes back before it answers.
	undoTime = 3 * time.Second
	// sweepTime bounds what a call spends on what earlier calls left behind.
	sweepTime = 2 * time.Second
	// isAttachedTime bounds isattached. kube-controller-manager runs it for each attached volume once a minute, without a
	// look at whether the last one has ended: those that wait for an array that is away must not pile up.
	isAttachedTime = 5 * time.Second
)

// Verb is one call of FlexVolume.
type Verb struct {
	Name string
	// Args are the words that follow the verb, as kubelet passes them.
	Args []string
	// Help is one line for people.
	Help string

	onNode      bool          // works on the node, so it may finish what was left there
	onArray     bool          // gives, takes or looks at a claim, so it may withdraw what was left there
	takesAway   bool          // is answered even without a usable configuration
	growsVolume bool          // on the array
	limit       time.Duration // 0: that of every call
	run         func(ctx context.Context, d *Driver, args []string) (Reply, error)
}

const (
	argOptions = "OPTIONS"
	argNode    = "NODE"
	argVolume  = "VOLUME"
)

// Verbs lists the calls in the order of a volume's life.
func Verbs() []Verb {
	return []Verb{
		{Name: "init", Help: "say what the driver can do", run: runInit},
		{Name: "attach", Args: []string{argOptions, argNode}, Help: "provision the volume, give NODE access and print the device string", onArray: true, run: runAttach},
		{Name: "isattached", Args: []string{argOptions, argNode}, Help: "tell whether NODE has access", limit: isAttachedTime, onArray: true, run: runIsAttached},
		{Name: "waitforattach", Args: []string{"DEVICE", argOptions}, Help: "log in to the volume's target and print its disk", onNode: true, run: runWaitForAttach},
		{Name: "mountdevice", Args: []string{"DIR", "DISK", argOptions}, Help: "make a file system if the disk is blank, and mount it on DIR", onNode: true, run: runMountDevice},
		{Name: "mount", Args: []string{"DIR", argOptions}, Help: "bind the volume into a pod's directory", onNode: true, run: runMount},
		{Name: "expandvolume", Args: []string{argOptions, "DIR", "BYTES", "OLD_BYTES"}, Help: "grow the volume on the array", growsVolume: true, run: runExpandVolume},
		{Name: "expandfs", Args: []string{argOptions, "DISK", "DIR", "BYTES", "OLD_BYTES"}, Help: "grow the volume on the array, the disk and the file system", onNode: true, growsVolume: true, run: runExpandFS},
		{Name: "unmount", Args: []string{"DIR"}, Help: "take the volume out of a pod's directory", onNode: true, takesAway: true, run: runUnmount},
		{Name: "unmountdevice", Args: []string{"DIR"}, Help: "unmount DIR, remove the disk and log out", onNode: true, takesAway: true, run: runUnmountDevice},
		{Name: "detach", Args: []string{argVolume, argNode}, Help: "take NODE's access away", onArray: true, run: runDetach},
	}
}

// AnswersAtOnce reports whether a call is answered from the configuration alone: init,
// which kubelet runs at every change beside the binary, and verbs that are not there.
func AnswersAtOnce(args []string) bool {
	index := findVerb(args[0])
	return index < 0 || Verbs()[index].Name == "init"
}

func findVerb(name string) int {
	return slices.IndexFunc(Verbs(), func(v Verb) bool { return v.Name == name })
}

// Serve answers one call. It always answers, and in time: whatever the call meets, a panic
// or a kernel that does not come back, it ends as a Failure that says so.
func (d *Driver) Serve(ctx context.Context, args []string) Reply {
	if len(args) == 0 {
		return failure(errors.New("no verb given: kubelet passes one, such as init; try --help"))
	}
	index := findVerb(args[0])
	if index < 0 {
		return Reply{Status: NotSupported, Message: fmt.Sprintf("%s is no verb of this driver", quoteShort(args[0]))}
	}
	verb := Verbs()[index]
	if flag := slices.IndexFunc(args[1:], isUnknownFlag); flag >= 0 {
		name, _, _ := strings.Cut(args[1+flag], "=") // its value may be a secret
		return failure(fmt.Errorf("unknown flag %s: try `iscsi %s --help`", name, verb.Name))
	}
	if len(args)-1 != len(verb.Args) {
		return failure(fmt.Errorf("%s got %d words after the verb: accepted are %d: %s", verb.Name, len(args)-1, len(verb.Args), verb.Usage()))
	}
	answer := make(chan Reply, 1)
	go func() { answer <- d.call(ctx, verb, args[1:]) }()
	select {
	case reply := <-answer:
		return reply
	case <-ctx.Done():
	}
	select { // it was told to stop: it undoes what it began, and answers
	case reply := <-answer:
		return reply
	case <-time.After(graceTime):
		return failure(fmt.Errorf("%s was told to stop (%w) and what it waits for does not come back: most likely a dead disk or target; look at dmesg", verb.Name, context.Cause(ctx)))
	}
}

// Usage is the call as it is typed.
func (v Verb) Usage() string { return strings.Join(append([]string{v.Name}, v.Args...), " ") }

func (d *Driver) call(ctx context.Context, verb Verb, args []string) (reply Reply) {
	defer func() {
		if cause := recover(); cause != nil {
			d.Log.ErrorContext(ctx, "panic", "verb", verb.Name, "cause", cause, "stack", string(debug.Stack()))
			reply = failure(fmt.Errorf("%s hit a fault in the driver itself: %v; its log has the details", verb.Name, cause))
		}
	}()
	if d.ConfigError != nil && !verb.takesAway && verb.Name != "init" {
		return failure(d.ConfigError)
	}
	if verb.onNode {
		d.sweep(ctx)
	}
	if verb.onArray {
		if err := d.withdrawUntold(ctx); err != nil {
			return failure(err)
		}
	}
	reply, err := verb.inTime(ctx, d, args)
	if err != nil {
		reply = failure(err, d.SecretsOf(args)...)
	}
	return reply
}

// inTime runs the verb within its own limit.
func (v Verb) inTime(ctx context.Context, d *Driver, args []string) (Reply, error) {
	if v.limit == 0 {
		return v.run(ctx, d, args)
	}
	limited, cancel := context.WithTimeout(ctx, v.limit)
	defer cancel()
	reply, err := v.run(limited, d, args)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%s was given up after %s, as it is asked again soon: see whether the array is away or overloaded: %w", v.Name, v.limit, err)
	}
	return reply, err
}

// SecretsOf are those that a call knows: the configuration's and those that kubelet adds to a volume's options.
func (d *Driver) SecretsOf(args []string) []string {
	secrets := d.Config.Secrets()
	for _, arg := range args {
		if !strings.Contains(arg, keySecret) {
			continue
		}
		if volume, _ := d.volume(arg); volume.Secret != nil {
			secrets = append(secrets, volume.Secret.Password)
		}
	}
	return secrets
}

// sweep comes before the call's own work, which may be about the same disk.
func (d *Driver) sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	d.abandonEarlierBoot(ctx)
	d.finishRemovals(ctx)
}

func done(err error) (Reply, error) { return Reply{Status: Success}, err }

// runInit answers without a look at anything but the configuration: it also runs where
// there are no tools, no array and no configuration.
func runInit(_ context.Context, d *Driver, _ []string) (Reply, error) {
	return Reply{Status: Success, Capabilities: &Capabilities{
		Attach:           d.Config.Attach != AttachNone,
		SELinuxRelabel:   true,
		SupportsMetrics:  true,
		FSGroup:          true,
		RequiresFSResize: true,
	}}, nil
}

func runAttach(ctx context.Context, d *Driver, args []string) (Reply, error) {
	volume, node, err := d.volumeAndNode(args[0], args[1])
	if err != nil {
		return Reply{}, err
	}
	device, err := d.attach(ctx, volume, node)
	return Reply{Status: Success, Device: device}, err
}

func runDetach(ctx context.Context, d *Driver, args []string) (Reply, error) {
	if err := errors.Join(checkVolumeName(args[0]), checkNodeName(args[1])); err != nil {
		return Reply{}, err
	}
	return done(d.detach(ctx, args[0], args[1]))
}

func runIsAttached(ctx context.Context, d *Driver, args []string) (Reply, error) {
	volume, node, err := d.volumeAndNode(args[0], args[1])
	if err != nil {
		return Reply{}, err
	}
	attached, err := d.isAttached(ctx, volume, node)
	return Reply{Status: Success, Attached: &attached}, err
}

func runWaitForAttach(ctx context.Context, d *Driver, args []string) (Reply, error) {
	volume, err := d.volume(args[1])
	if err != nil {
		return Reply{}, err
	}
	disk, err := d.waitForAttach(ctx, args[0], volume)
	return Reply{Status: Success, Device: disk}, err
}

func runMountDevice(ctx context.Context, d *Driver, args []string) (Reply, error) {
	volume, err := d.volume(args[2])
	if err != nil {
		return Reply{}, err
	}
	return done(d.mountDevice(ctx, args[0], args[1], volume))
}

func runMount(ctx context.Context, d *Driver, args []string) (Reply, error) {
	volume, err := d.volume(args[1])
	if err != nil {
		return Reply{}, err
	}
	return done(d.mount(ctx, args[0], volume))
}

func runUnmount(ctx context.Context, d *Driver, args []string) (Reply, error) {
	return done(d.unmount(ctx, args[0]))
}

func runUnmountDevice(ctx context.Context, d *Driver, args []string) (Reply, error) {
	return done(d.unmountDevice(ctx, args[0]))
}

func runExpandVolume(ctx context.Context, d *Driver, args []string) (Reply, error) {
	volume, err := d.volume(args[0])
	if err != nil {
		return Reply{}, err
	}
	bytes, err := parseBytes("the new size", args[2])
	if err != nil {
		return Reply{}, err
	}
	size, err := d.expandVolume(ctx, volume, bytes)
	return Reply{Status: Success, VolumeNewSize: size}, err
}

func runExpandFS(ctx context.Context, d *Driver, args []string) (Reply, error) {
	volume, err := d.volume(args[0])
	if err != nil {
		return Reply{}, err
	}
	bytes, err := parseBytes("the new size", args[3])
	if err != nil {
		return Reply{}, err
	}
	return done(d.expandFS(ctx, volume, args[2], bytes))
}

// volume parses the options of a call.
func (d *Driver) volume(options string) (Volume, error) {
	return ParseVolume(options, d.Config.Cluster)
}

func (d *Driver) volumeAndNode(options, node string) (Volume, string, error) {
	volume, err := d.volume(options)
	return volume, node, errors.Join(err, checkNodeName(node))
}
