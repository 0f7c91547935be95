package driver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Status is the first word of every answer; kubelet compares it letter by letter.
type Status string

// The three answers that FlexVolume knows. NotSupported is cached by kubelet until it
// probes the driver again, so it stands only for verbs that are really not there.
const (
	Success      Status = "Success"
	Failure      Status = "Failure"
	NotSupported Status = "Not supported"
)

// Reply is the one JSON document that a call prints (k8s.io/kubernetes
// pkg/volume/flexvolume/driver-call.go, DriverStatus).
type Reply struct {
	Status  Status `json:"status"`
	Message string `json:"message,omitempty"`
	// Device is what attach hands to waitforattach, and waitforattach to mountdevice.
	Device string `json:"device,omitempty"`
	// Attached answers isattached; nil everywhere else.
	Attached *bool `json:"attached,omitempty"`
	// Capabilities answers init. It is left out when nil: a null makes kubelet panic.
	Capabilities *Capabilities `json:"capabilities,omitempty"`
	// VolumeNewSize is the size in bytes after expandvolume.
	VolumeNewSize int64 `json:"volumeNewSize,omitempty"`
}

// Capabilities tells kubelet which calls to make and what to do by itself.
type Capabilities struct {
	Attach           bool `json:"attach"`
	SELinuxRelabel   bool `json:"selinuxRelabel"`
	SupportsMetrics  bool `json:"supportsMetrics"`
	FSGroup          bool `json:"fsGroup"`
	RequiresFSResize bool `json:"requiresFSResize"`
}

// Line is the reply as kubelet reads it: one line of JSON.
func (r Reply) Line() []byte {
	var line bytes.Buffer
	encoder := json.NewEncoder(&line) // ends the line
	encoder.SetEscapeHTML(false)      // a device string has an &, which people read
	_ = encoder.Encode(r)             // strings, numbers and booleans always encode
	return line.Bytes()
}

// longestMessage is in bytes. An event's note holds 1 kB (k8s.io/api, events/v1); the rest is for the logs.
const longestMessage = 4096

// failure bounds the message and hides secrets in it: part of it may come from an array, or from who stands in its place.
func failure(err error, secrets ...string) Reply {
	message := hidden(err.Error(), secrets...)
	if len(message) > longestMessage {
		message = fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(message[:longestMessage], ""), len(message))
	}
	return Reply{Status: Failure, Message: message}
}
