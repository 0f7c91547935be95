package driver

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
)

// The keys that Kubernetes adds to a volume's options
// (k8s.io/kubernetes pkg/volume/flexvolume/driver-call.go).
const (
	keyPrefix    = "kubernetes.io/"
	keyName      = keyPrefix + "pvOrVolumeName"
	keyFSType    = keyPrefix + "fsType"
	keyReadWrite = keyPrefix + "readwrite"
	keySecret    = keyPrefix + "secret/"
)

// The options that a PersistentVolume may carry.
const (
	optVolumeID        = "volumeID"
	optSize            = "size"
	optReplica         = "replica"
	optServer          = "backstoreServer"
	optTemplate        = "template"
	optMaxIOPS         = "maxIops"
	optMaxBandwidth    = "maxBW"
	optIPPool          = "ipPool"
	optPlacementMode   = "placementMode"
	optPlacementPolicy = "placementPolicy"
	optTenant          = "tenant"
	optSource          = "volumeSource"
	optRetainPolicy    = "retainPolicy"
	optMountOptions    = "mountOptions"
	optMkfsOptions     = "mkfsOptions"
	optProvisioned     = "provisioned"
)

// Limits of the array's API (volume size and replica_count, performance_policy).
const (
	maxSizeGiB      = 262144 // 256 TiB
	maxReplicas     = 5
	maxIOPS         = 10_000_000
	maxBandwidthKiB = 10_240_000
	// maxOptionsBytes bounds the JSON of one call; Kubernetes' own limit for a whole object is 1.5 MiB.
	maxOptionsBytes = 1 << 20
)

const defaultReplicas = 3

// Volume is a volume as its options describe it: checked, with the defaults filled in.
type Volume struct {
	Name            string // of the PersistentVolume, or of the volume in the pod
	AppInstance     string // name on the array: volumeID, or derived from Name
	Derived         bool   // and which of them
	SizeGiB         int64  // 0 when a template or a clone's source decides
	Replicas        int
	Server          Server // zero value: the configured one
	Template        string
	MaxIOPS         int64
	MaxBandwidthKiB int64 // KiB/s
	IPPool          string
	PlacementMode   string
	PlacementPolicy string
	Tenant          string
	Source          string // path of the volume or snapshot that this one is a clone of
	DeleteAllowed   bool   // retainPolicy: never
	Filesystem      string
	MountOptions    []string
	MkfsOptions     []string
	ReadOnly        bool
	Provisioned     bool         // the provisioner made it: no call of kubelet makes it again
	Secret          *Credentials // of the volume's secretRef; only mount ever gets it
}

// FieldError is bad input: which field, what it held and what it accepts.
type FieldError struct {
	Field, Value, Accepts string
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("option %s is %s: accepted is %s", e.Field, quoteShort(e.Value), e.Accepts)
}

// quoteShort makes foreign input safe to print: quoted, without control characters, and short.
func quoteShort(value string) string {
	const longest = 80
	if len(value) > longest {
		return fmt.Sprintf("%q… (%d bytes)", value[:longest], len(value))
	}
	return strconv.Quote(value)
}

// ParseVolume reads the options of one call. The cluster's name is part of the array-side
// name of a volume that has no volumeID.
func ParseVolume(document, cluster string) (Volume, error) {
	options, err := parseOptions(document)
	if err != nil {
		return Volume{}, err
	}
	p := optionParser{options: options}
	volume := Volume{
		Name:            p.name(),
		AppInstance:     p.matching(optVolumeID, isEntityName, "3 to 64 letters, digits, '_', '-' or '.', the first a letter or '_' (or a UUID)"),
		Replicas:        int(p.number(optReplica, 1, maxReplicas, defaultReplicas)),
		Server:          p.server(),
		Template:        p.matching(optTemplate, isEntityName, "the name of an app template of the array"),
		MaxIOPS:         p.number(optMaxIOPS, 0, maxIOPS, 0),
		MaxBandwidthKiB: p.number(optMaxBandwidth, 0, maxBandwidthKiB, 0),
		IPPool:          p.matching(optIPPool, isEntityName, "the name of an IP pool of the array, such as default"),
		PlacementMode:   p.oneOf(optPlacementMode, "", "hybrid", "single_flash", "all_flash"),
		PlacementPolicy: p.matching(optPlacementPolicy, isEntityName, "the name of a placement policy of the array"),
		Tenant:          p.tenant(),
		Source:          p.matching(optSource, isSourcePath, "the path of a volume or snapshot on the array, /app_instances/…/volumes/volume-1[/snapshots/…]"),
		DeleteAllowed:   p.oneOf(optRetainPolicy, "retain", "retain", "never") == "never",
		Filesystem:      p.oneOf(keyFSType, "xfs", "xfs", "ext4"),
		MountOptions:    p.words(optMountOptions, ","),
		MkfsOptions:     p.words(optMkfsOptions, " "),
		ReadOnly:        p.oneOf(keyReadWrite, "rw", "rw", "ro") == "ro",
		Provisioned:     p.oneOf(optProvisioned, "false", "false", "true") == "true",
		Secret:          p.secret(),
	}
	volume.SizeGiB = p.size(volume.Template != "" || volume.Source != "")
	if volume.AppInstance == "" {
		volume.AppInstance, volume.Derived = entityNameFor(cluster, volume.Name), true
	}
	return volume, errors.Join(p.errs...)
}

func parseOptions(document string) (map[string]string, error) {
	if len(document) > maxOptionsBytes {
		return nil, fmt.Errorf("the options are %d bytes of JSON: accepted are %d at most", len(document), maxOptionsBytes)
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(document), &raw); err != nil {
		if strings.Contains(document, keySecret) {
			document = "(hidden)"
		}
		return nil, fmt.Errorf("the options %s are no JSON object: %w; accepted is {\"volumeID\":\"…\",\"size\":\"100\",…}", quoteShort(document), err)
	}
	if len(raw) == 0 {
		return nil, errors.New("the options are empty: needed are at least " + keyName + " and " + optSize)
	}
	if err := checkKeys(raw); err != nil {
		return nil, err
	}
	options := make(map[string]string, len(raw))
	for key, value := range raw {
		var text string
		if err := json.Unmarshal(value, &text); err != nil {
			if strings.HasPrefix(key, keySecret) {
				value = []byte("(hidden)")
			}
			return nil, &FieldError{key, string(value), "a string in quotes, as all FlexVolume options are"}
		}
		options[key] = text
	}
	return options, nil
}

var driverOptions = []string{
	optVolumeID, optSize, optReplica, optServer, optTemplate, optMaxIOPS, optMaxBandwidth, optIPPool, optPlacementMode,
	optPlacementPolicy, optTenant, optSource, optRetainPolicy, optMountOptions, optMkfsOptions, optProvisioned,
}

// checkKeys refuses what the driver does not know, so that a misspelt option is not
// silently without effect. Keys of Kubernetes itself may grow with its versions.
func checkKeys(options map[string]json.RawMessage) error {
	var errs []error
	for key := range options {
		if strings.HasPrefix(key, keyPrefix) || slices.Contains(driverOptions, key) {
			continue
		}
		errs = append(errs, fmt.Errorf("unknown option %w", UnknownKey(key, driverOptions)))
	}
	return errors.Join(errs...)
}

// UnknownKey says that a key is none of the known ones, and which of them is the nearest.
func UnknownKey(key string, known []string) error {
	return fmt.Errorf("%s: did you mean %s? Accepted are %s", quoteShort(key), nearest(key, known), strings.Join(known, ", "))
}

func nearest(word string, known []string) string {
	return slices.MinFunc(known, func(a, b string) int { return distance(word, a) - distance(word, b) })
}

// distance is how many letters of a word must change to make it the known one. Of a long word the beginning counts.
func distance(word, known string) int {
	return levenshtein.ComputeDistance(strings.ToLower(word[:min(len(word), 64)]), strings.ToLower(known))
}

var (
	// \z and not $, so that a final newline is refused.
	entityName = pattern(`\A(?:[A-Za-z_][A-Za-z0-9_.-]*|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})\z`)
	sourcePath = pattern(`\A/app_instances/[A-Za-z0-9_.-]+/storage_instances/[A-Za-z0-9_.-]+/volumes/[A-Za-z0-9_.-]+(?:/snapshots/[0-9]+\.[0-9]+)?\z`)
	tenantPath = pattern(`\A(?:/root|(?:/root/)?[A-Za-z_][A-Za-z0-9_.-]*(?:/[A-Za-z_][A-Za-z0-9_.-]*)*)\z`)
	optionWord = pattern(`\A[A-Za-z0-9_=.:/@%+,-]+\z`)
)

// longestPath bounds what becomes part of a URL: several names of the array.
const longestPath = 512

// isEntityName is the array's rule for names, without the two dots that climb in a path.
func isEntityName(text string) bool {
	return len(text) >= 3 && len(text) <= entityNameLimit && entityName().MatchString(text) && !strings.Contains(text, "..")
}

func isSourcePath(text string) bool {
	return len(text) <= longestPath && sourcePath().MatchString(text) && !strings.Contains(text, "..")
}

const tenantAccepts = "/root, or a tenant below it as /root/NAME"

func isTenantPath(text string) bool {
	return len(text) <= longestPath && tenantPath().MatchString(text) && !strings.Contains(text, "..")
}

// optionParser takes the options apart and collects what is wrong with them, so that a
// person mends a manifest once and not once for each field.
type optionParser struct {
	options map[string]string
	errs    []error
}

func (p *optionParser) refuse(field, accepts string) {
	p.errs = append(p.errs, &FieldError{field, p.options[field], accepts})
}

func (p *optionParser) name() string {
	name := p.options[keyName]
	if checkVolumeName(name) != nil {
		p.refuse(keyName, "the name of the PersistentVolume: lower-case letters, digits, '-' and '.', 253 at most")
	}
	return name
}

func (p *optionParser) matching(key string, accepted func(string) bool, accepts string) string {
	value, given := p.options[key]
	if given && !accepted(value) {
		p.refuse(key, accepts)
	}
	return value
}

func (p *optionParser) oneOf(key, otherwise string, accepted ...string) string {
	value := p.options[key]
	if value == "" {
		return otherwise
	}
	if !slices.Contains(accepted, value) {
		p.refuse(key, strings.Join(accepted, " or "))
	}
	return value
}

func (p *optionParser) number(key string, lowest, highest, otherwise int64) int64 {
	value, given := p.options[key]
	if !given {
		return otherwise
	}
	number, err := strconv.ParseInt(value, 10, 64)
	if err != nil || number < lowest || number > highest {
		p.refuse(key, fmt.Sprintf("a whole number from %d to %d", lowest, highest))
	}
	return number
}

func (p *optionParser) size(optional bool) int64 {
	if _, given := p.options[optSize]; !given && optional {
		return 0
	}
	if _, given := p.options[optSize]; !given {
		p.errs = append(p.errs, fmt.Errorf("option size is missing: accepted is a whole number of GiB from 1 to %d, such as \"100\" (only %s and %s make it optional)",
			maxSizeGiB, optTemplate, optSource))
		return 0
	}
	size, err := strconv.ParseInt(p.options[optSize], 10, 64)
	if err != nil || size < 1 || size > maxSizeGiB {
		p.refuse(optSize, fmt.Sprintf("a whole number of GiB from 1 to %d, such as \"100\"", maxSizeGiB))
	}
	return size
}

func (p *optionParser) server() Server {
	value, given := p.options[optServer]
	if !given {
		return Server{}
	}
	server, err := ParseServer(value)
	if err != nil {
		p.refuse(optServer, serverAccepts)
	}
	return server
}

func (p *optionParser) tenant() string {
	value := p.matching(optTenant, isTenantPath, tenantAccepts)
	if value == "" || strings.HasPrefix(value, "/root") {
		return value
	}
	return "/root/" + value
}

func (p *optionParser) words(key, separator string) []string {
	var words []string
	for word := range strings.SplitSeq(p.options[key], separator) {
		if word == "" {
			continue
		}
		if !optionWord().MatchString(word) {
			p.refuse(key, fmt.Sprintf("words of letters, digits and _=.:/@%%+- with %q between them", separator))
			return nil
		}
		words = append(words, word)
	}
	return words
}

// secret reads what a secretRef brought; its values are never part of an error.
func (p *optionParser) secret() *Credentials {
	credentials := &Credentials{
		Username: p.secretValue("username", "user"),
		Password: p.secretValue("password"),
	}
	server := p.secretValue("server")
	if *credentials == (Credentials{}) && server == "" {
		return nil
	}
	if credentials.Username == "" || credentials.Password == "" {
		p.errs = append(p.errs, errors.New("the volume's secret has no username or no password: accepted are the keys username, password and (optional) server in a Secret of type datera/iscsi"))
	}
	if server != "" {
		parsed, err := ParseServer(server)
		if err != nil {
			p.errs = append(p.errs, &FieldError{"server of the volume's secret", server, serverAccepts})
		}
		credentials.Server = parsed
	}
	return credentials
}

func (p *optionParser) secretValue(keys ...string) string {
	for _, key := range keys {
		encoded, given := p.options[keySecret+key]
		if !given {
			continue
		}
		value, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			p.errs = append(p.errs, fmt.Errorf("key %s of the volume's secret is no base64", key))
			return ""
		}
		return strings.TrimRight(string(value), "\r\n")
	}
	return ""
}
