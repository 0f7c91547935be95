package driver

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// DriverName is how volumes name this driver; it is the type of its Secrets, too.
const DriverName = "datera/iscsi"

// maxManifestBytes bounds what is read of one file: more than all volumes of a large cluster.
const maxManifestBytes = 64 << 20

// VolumeSource says where a person has written down which volume is meant.
type VolumeSource struct {
	Files    []string  // manifests, YAML or JSON; "-" is Stdin
	Stdin    io.Reader //
	Name     string    // of the volume, where the files hold several
	ReadOnly bool      // as if the pod's claim were readOnly
}

// Request reads the manifests and finds the volume in them. Beside PersistentVolumes and in-line volumes they may hold
// the Pod and the Secret that kubelet would know of; what else is in them does not matter.
func (s VolumeSource) Request() (Request, error) {
	var m manifests
	for _, path := range s.Files {
		document, err := s.read(path)
		if err != nil {
			return Request{}, err
		}
		if err := m.add(document); err != nil {
			return Request{}, fmt.Errorf("manifest %s: %w", path, err)
		}
	}
	request, err := m.request(s.Name)
	if err != nil {
		return Request{}, fmt.Errorf("manifest %s: %w", strings.Join(s.Files, ", "), err)
	}
	request.readOnly = request.readOnly || s.ReadOnly
	return request, nil
}

func (s VolumeSource) read(path string) ([]byte, error) {
	reader := s.Stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		reader = file
	}
	document, err := io.ReadAll(io.LimitReader(reader, maxManifestBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", path, err)
	}
	if len(document) > maxManifestBytes {
		return nil, fmt.Errorf("manifest %s has more than %d bytes", path, maxManifestBytes)
	}
	return document, nil
}

// What is needed of Kubernetes' objects (k8s.io/api/core/v1), by their names there.
type (
	objectMeta struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
		UID       string `json:"uid"`
	}
	reference struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	}
	flexVolume struct {
		Driver    string         `json:"driver"`
		FSType    string         `json:"fsType"`
		SecretRef *reference     `json:"secretRef"`
		ReadOnly  bool           `json:"readOnly"`
		Options   map[string]any `json:"options"`
	}
	persistentVolume struct {
		Metadata objectMeta `json:"metadata"`
		Spec     struct {
			FlexVolume *flexVolume `json:"flexVolume"`
			ClaimRef   *reference  `json:"claimRef"`
		} `json:"spec"`
	}
	pod struct {
		Metadata objectMeta `json:"metadata"`
		Spec     struct {
			ServiceAccountName string `json:"serviceAccountName"`
			SecurityContext    struct {
				FSGroup *int64 `json:"fsGroup"`
			} `json:"securityContext"`
			Volumes []struct {
				Name                  string      `json:"name"`
				FlexVolume            *flexVolume `json:"flexVolume"`
				PersistentVolumeClaim *struct {
					ClaimName string `json:"claimName"`
					ReadOnly  bool   `json:"readOnly"`
				} `json:"persistentVolumeClaim"`
			} `json:"volumes"`
		} `json:"spec"`
	}
	secret struct {
		Metadata   objectMeta        `json:"metadata"`
		Type       string            `json:"type"`
		Data       map[string][]byte `json:"data"`
		StringData map[string]string `json:"stringData"`
	}
)

// manifests are the objects that were read.
type manifests struct {
	volumes []persistentVolume
	pods    []pod
	secrets []secret
}

// add takes what a file holds: documents, and lists of objects as kubectl prints them.
func (m *manifests) add(content []byte) error {
	for n, document := range documentsIn(content) {
		object, err := yaml.YAMLToJSON(document)
		if err != nil {
			return fmt.Errorf("document %d is neither YAML nor JSON (it is not shown, it may hold a secret)", n+1)
		}
		if err := m.addObject(object); err != nil {
			return err
		}
	}
	return nil
}

// documentsIn separates the documents of a YAML file (YAML 1.2, 9.1.4: a line that begins with three dashes is nothing else).
func documentsIn(content []byte) [][]byte {
	documents := [][]byte{nil}
	for line := range bytes.Lines(content) {
		if rest, found := bytes.CutPrefix(line, []byte("---")); found && len(bytes.TrimLeft(rest[:min(1, len(rest))], " \t\r\n")) == 0 {
			documents = append(documents, rest)
			continue
		}
		last := &documents[len(documents)-1]
		*last = append(*last, line...)
	}
	return documents
}

func (m *manifests) addObject(object []byte) error {
	var head struct {
		Kind     string            `json:"kind"`
		Metadata objectMeta        `json:"metadata"`
		Items    []json.RawMessage `json:"items"`
	}
	if bytes.Equal(bytes.TrimSpace(object), []byte("null")) {
		return nil // an empty document
	}
	if err := json.Unmarshal(object, &head); err != nil {
		return errors.New("it holds a document that is no object of Kubernetes")
	}
	var err error
	switch head.Kind {
	case "PersistentVolume":
		m.volumes, err = appendObject(m.volumes, object)
	case "Pod":
		m.pods, err = appendObject(m.pods, object)
	case "Secret":
		if m.secrets, err = appendObject(m.secrets, object); err != nil {
			err = errors.New("its data are no strings in base64")
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", head.Kind, quoteShort(head.Metadata.Name), err)
	}
	for _, item := range head.Items {
		if err := m.addObject(item); err != nil {
			return err
		}
	}
	return nil
}

func appendObject[T any](objects []T, document []byte) ([]T, error) {
	var object T
	err := json.Unmarshal(document, &object)
	return append(objects, object), err
}

// request finds the volume of a name, or the only one if that is "".
func (m *manifests) request(name string) (Request, error) {
	requests, others := m.requests()
	if name != "" {
		requests = slices.DeleteFunc(requests, func(r Request) bool { return r.Name != name })
	}
	switch {
	case len(requests) == 1:
		return requests[0], requests[0].check()
	case len(requests) > 1 && name != "":
		return Request{}, fmt.Errorf("it holds %d volumes of the name %s", len(requests), name)
	case len(requests) > 1:
		return Request{}, fmt.Errorf("it holds the volumes %s: choose one with --name", namesOf(requests))
	}
	wanted := "no volume"
	if name != "" {
		wanted = "no volume " + name
	}
	if len(others) > 0 {
		return Request{}, fmt.Errorf("it holds %s with flexVolume.driver: %s, but %s", wanted, DriverName, strings.Join(others, ", "))
	}
	return Request{}, fmt.Errorf("it holds %s: needed is a PersistentVolume (or a Pod with an in-line volume) with flexVolume.driver: %s", wanted, DriverName)
}

func namesOf(requests []Request) string {
	var names []string
	for _, r := range requests {
		names = append(names, r.Name)
	}
	return strings.Join(names, ", ")
}

// requests are the volumes of this driver; others names those that are not its.
func (m *manifests) requests() (requests []Request, others []string) {
	for _, pv := range m.volumes {
		source := pv.Spec.FlexVolume
		if source == nil || source.Driver != DriverName {
			others = append(others, fmt.Sprintf("%s with %s", pv.Metadata.Name, cmp.Or(driverOf(source), "another kind of volume")))
			continue
		}
		r := Request{Name: pv.Metadata.Name, source: *source}
		r.pod, r.readOnly = m.podOf(pv)
		r.secret = m.secretOf(r)
		requests = append(requests, r)
	}
	for i, pod := range m.pods {
		for _, volume := range pod.Spec.Volumes {
			if volume.FlexVolume == nil || volume.FlexVolume.Driver != DriverName {
				continue
			}
			r := Request{Name: volume.Name, inline: true, source: *volume.FlexVolume, readOnly: volume.FlexVolume.ReadOnly, pod: &m.pods[i]}
			r.secret = m.secretOf(r)
			requests = append(requests, r)
		}
	}
	return requests, others
}

func driverOf(source *flexVolume) string {
	if source == nil {
		return ""
	}
	return "driver " + quoteShort(source.Driver)
}

// podOf is the pod whose claim is bound to the volume, and whether it wants to read only.
func (m *manifests) podOf(pv persistentVolume) (*pod, bool) {
	claim := pv.Spec.ClaimRef
	if claim == nil {
		return nil, false
	}
	for i, pod := range m.pods {
		for _, volume := range pod.Spec.Volumes {
			c := volume.PersistentVolumeClaim
			if c != nil && c.ClaimName == claim.Name && pod.namespace() == cmp.Or(claim.Namespace, defaultNamespace) {
				return &m.pods[i], c.ReadOnly
			}
		}
	}
	return nil, false
}

// defaultNamespace is that of objects whose manifest names none.
const defaultNamespace = "default"

func (p pod) namespace() string { return cmp.Or(p.Metadata.Namespace, defaultNamespace) }

// secretOf is the one that the volume's secretRef names, nil where the manifests do not hold it. An in-line volume's is
// in the namespace of its pod, and so is one that names no namespace.
func (m *manifests) secretOf(r Request) *secret {
	if r.source.SecretRef == nil {
		return nil
	}
	namespace := r.source.SecretRef.Namespace
	if r.pod != nil && (r.inline || namespace == "") {
		namespace = r.pod.namespace()
	}
	for i, s := range m.secrets {
		if s.Metadata.Name == r.source.SecretRef.Name && (namespace == "" || namespace == cmp.Or(s.Metadata.Namespace, defaultNamespace)) {
			return &m.secrets[i]
		}
	}
	return nil
}
