package driver

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The keys that kubelet adds for mount alone (k8s.io/kubernetes pkg/volume/flexvolume/mounter.go).
const (
	keyPodName        = keyPrefix + "pod.name"
	keyPodNamespace   = keyPrefix + "pod.namespace"
	keyPodUID         = keyPrefix + "pod.uid"
	keyServiceAccount = keyPrefix + "serviceAccount.name"
	keyFSGroup        = keyPrefix + "mounterArgs.FsGroup"
)

// Request is a volume as a manifest asks for it, from which Kubernetes makes the words of its calls.
type Request struct {
	Name     string // of the PersistentVolume, or of the volume in its pod
	inline   bool
	source   flexVolume
	readOnly bool
	pod      *pod    // nil: not known
	secret   *secret // nil: none, or not known
}

// check refuses what Kubernetes' API server would.
func (r Request) check() error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(r.source.Options)) {
		if _, isText := r.source.Options[key].(string); !isText {
			errs = append(errs, fmt.Errorf("option %s of volume %s is %v: Kubernetes accepts strings only, in quotes", quoteShort(key), r.Name, r.source.Options[key]))
		}
		if strings.HasPrefix(key, keyPrefix) {
			errs = append(errs, fmt.Errorf("option %s of volume %s: keys with %s are Kubernetes' own", quoteShort(key), r.Name, keyPrefix))
		}
	}
	return errors.Join(append(errs, checkVolumeName(r.Name))...)
}

// Options is the JSON that every verb but mount gets.
func (r Request) Options() string { return r.options(nil) }

// OptionsWithSecret is for what a person has done to the volume on its array: the secret says which array that is.
func (r Request) OptionsWithSecret() (string, error) {
	secret, err := r.secretOptions()
	if err != nil {
		return "", err
	}
	return r.options(secret), nil
}

func (r Request) options(more map[string]string) string {
	options := map[string]string{}
	for key, value := range r.source.Options {
		options[key], _ = value.(string) // check has seen that it is one
	}
	return optionsJSON(r.Name, r.source.FSType, r.readOnly, more, options)
}

// OptionsOf is the JSON that kubelet passes to mount for a PersistentVolume. The secret is that of its secretRef, as it is,
// without base64.
func OptionsOf(name, fsType string, readOnly bool, options map[string]string, secret map[string][]byte) string {
	return optionsJSON(name, fsType, readOnly, passedSecret(secret), options)
}

func optionsJSON(name, fsType string, readOnly bool, more, options map[string]string) string {
	all := map[string]string{keyFSType: fsType, keyName: name, keyReadWrite: "rw"}
	if readOnly {
		all[keyReadWrite] = "ro"
	}
	maps.Copy(all, more)
	maps.Copy(all, options)
	document, _ := json.Marshal(all) // strings always encode; sorted and escaped as Kubernetes does
	return string(document)
}

func passedSecret(data map[string][]byte) map[string]string {
	options := map[string]string{}
	for key, value := range data {
		options[keySecret+key] = base64.StdEncoding.EncodeToString(value)
	}
	return options
}

// MountOptions is the JSON that mount gets for a pod's directory: with the volume's secret, and with what is known of the pod.
func (r Request) MountOptions(dir string) (string, error) {
	secret, err := r.secretOptions()
	if err != nil {
		return "", err
	}
	more := r.podOptions(dir)
	maps.Copy(more, secret)
	return r.options(more), nil
}

// secretOptions are those that the secretRef adds; none without one.
func (r Request) secretOptions() (map[string]string, error) {
	reference := r.source.SecretRef
	if reference == nil {
		return nil, nil
	}
	if r.secret == nil {
		return nil, fmt.Errorf("volume %s has the secretRef %s: give that Secret, too, with another --pv (kubectl get secret %s -o yaml | … --pv -)",
			r.Name, reference.Name, reference.Name)
	}
	if r.secret.Type != DriverName {
		return nil, fmt.Errorf("secret %s is of type %s: kubelet takes only those of type %s", reference.Name, quoteShort(r.secret.Type), DriverName)
	}
	options := passedSecret(r.secret.Data)
	for key, value := range r.secret.StringData {
		options[keySecret+key] = base64.StdEncoding.EncodeToString([]byte(value))
	}
	return options, nil
}

func (r Request) podOptions(dir string) map[string]string {
	if r.pod == nil {
		return map[string]string{}
	}
	uid := filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(dir)))) // …/pods/UID/volumes/datera~iscsi/NAME
	options := map[string]string{
		keyPodName: r.pod.Metadata.Name, keyPodNamespace: r.pod.namespace(), keyPodUID: cmp.Or(r.pod.Metadata.UID, uid),
		keyServiceAccount: cmp.Or(r.pod.Spec.ServiceAccountName, "default"),
	}
	if group := r.pod.Spec.SecurityContext.FSGroup; group != nil {
		options[keyFSGroup] = strconv.FormatInt(*group, 10)
	}
	return options
}

// WordsWithout are those that a person types for a verb whose volume is told by a manifest.
func (v Verb) WordsWithout() []string {
	return slices.DeleteFunc(slices.Clone(v.Args), func(word string) bool { return word == argOptions || word == argVolume })
}

// TakesVolume tells whether a manifest can stand for some word of the verb's.
func (v Verb) TakesVolume() bool { return len(v.WordsWithout()) < len(v.Args) }

// Call is the verb with all its words as Kubernetes passes them, and with the volume's secret where the array's volume is
// to grow; words are those that the manifest does not tell.
func (r Request) Call(verb Verb, words []string) ([]string, error) {
	if wanted := verb.WordsWithout(); len(words) != len(wanted) {
		return nil, fmt.Errorf("%s got %d words beside the manifest: accepted are %d: %s", verb.Name, len(words), len(wanted), strings.Join(wanted, " "))
	}
	call := []string{verb.Name}
	for _, arg := range verb.Args {
		switch {
		case arg == argVolume:
			call = append(call, r.Name)
		case arg == argOptions && verb.Name == "mount":
			options, err := r.MountOptions(call[1]) // its DIR
			if err != nil {
				return nil, err
			}
			call = append(call, options)
		case arg == argOptions && verb.growsVolume:
			// kubelet keeps the secret to mount. A person who has it must not grow another array's volume of the same name.
			options, err := r.OptionsWithSecret()
			if err != nil {
				return nil, err
			}
			call = append(call, options)
		case arg == argOptions:
			call = append(call, r.Options())
		default:
			call, words = append(call, words[0]), words[1:]
		}
	}
	return call, nil
}

// personsFlags are those of the verbs that kubelet calls. It passes none.
var personsFlags = []string{"--pv", "--name", "--read-only", "--explain", "--help", "-h"}

// IsKubelets tells a call of kubelet's from one that a person typed with a flag. Kubelet's have the exact number of words;
// one of them, the device, may hold anything.
func IsKubelets(args []string) bool {
	index := findVerb(args[0])
	if index < 0 {
		return false
	}
	verb, words := Verbs()[index], args[1:]
	if !slices.ContainsFunc(words, isPersonsFlag) {
		return true
	}
	options := slices.Index(verb.Args, argOptions)
	return options >= 0 && len(words) == len(verb.Args) && strings.HasPrefix(words[options], "{")
}

var flagWord = pattern(`\A--[a-z][a-z-]{1,30}(?:=|\z)`)

// isUnknownFlag tells what a person meant as a flag: no word of kubelet's looks so.
func isUnknownFlag(word string) bool { return flagWord().MatchString(word) && !isPersonsFlag(word) }

func isPersonsFlag(word string) bool {
	name, _, _ := strings.Cut(word, "=")
	return slices.Contains(personsFlags, name)
}

// Environment is what the words of a call depend on beside the volume.
type Environment struct {
	Node string // name in Kubernetes; "" is not known
	Root string // kubelet's directory; "" is that of the kubelet here, or the usual one
}

// WriteCalls prints what Kubernetes calls with this volume in the order of its life, or one verb of it, as a shell takes it.
// Words that are known later only are variables.
func (r Request) WriteCalls(w io.Writer, environment Environment, name string) error {
	if name != "" && findVerb(name) < 0 {
		return fmt.Errorf("%s is no verb of this driver", quoteShort(name))
	}
	for _, verb := range Verbs() {
		if name != "" && name != verb.Name {
			continue
		}
		if name == "" {
			if _, err := fmt.Fprintf(w, "# %s: %s\n", caller(verb), verb.Help); err != nil {
				return err
			}
		}
		line, err := r.shellLine(verb, environment)
		if err != nil && name != "" {
			return err
		}
		if err != nil {
			line = "# not shown: " + err.Error()
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// caller is who makes the call in attach mode controller.
func caller(verb Verb) string {
	switch {
	case verb.onNode || verb.Name == "init":
		return "kubelet"
	case verb.Name == "expandvolume": // kubelet's expandfs does it all
		return "no controller of today"
	}
	return "kube-controller-manager"
}

func (r Request) shellLine(verb Verb, environment Environment) (string, error) {
	root := cmp.Or(environment.Root, Host{}.kubelet().root)
	global := filepath.Join(root, globalMounts, r.Name)
	ofPod := filepath.Join(root, "pods", r.podUID(), "volumes", FolderName, r.Name)
	words := map[string]string{argNode: cmp.Or(environment.Node, "$NODE"), "DIR": global}
	if verb.Name == "mount" || verb.Name == "unmount" {
		words["DIR"] = ofPod
	}
	line := []string{"iscsi", verb.Name}
	for _, arg := range verb.Args {
		word, known := words[arg]
		switch {
		case arg == argOptions && verb.Name == "mount":
			options, err := r.MountOptions(ofPod)
			if err != nil {
				return "", err
			}
			line = append(line, quoted(options))
		case arg == argOptions:
			line = append(line, quoted(r.Options()))
		case arg == argVolume:
			line = append(line, quoted(r.Name))
		case known && !strings.Contains(word, "$"):
			line = append(line, quoted(word))
		default:
			line = append(line, `"`+cmp.Or(word, "$"+arg)+`"`)
		}
	}
	return strings.Join(line, " "), nil
}

func (r Request) podUID() string {
	if r.pod == nil {
		return "$POD_UID"
	}
	return cmp.Or(r.pod.Metadata.UID, "$POD_UID")
}

var plainWord = pattern(`\A[A-Za-z0-9_/.:~@%+,=-]+\z`)

// quoted is a word as a POSIX shell reads it.
func quoted(word string) string {
	if plainWord().MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
