package driver

import (
	"context"
	"log/slog"
	"time"
)

// MessageAnswered marks the line of the log that tells of a whole call.
const MessageAnswered = "answered"

// Work is what a call did beside answering.
type Work struct {
	Duration time.Duration
	Programs int64 // started
	Requests int64 // made to the array
}

// LogAnswer writes the one line that each call has.
func (d *Driver) LogAnswer(reply Reply, work Work) {
	d.Log.LogAttrs(context.Background(), slog.LevelInfo, MessageAnswered,
		slog.String("status", string(reply.Status)), slog.String("message", reply.Message), slog.String("device", reply.Device),
		slog.Float64("seconds", work.Duration.Seconds()), slog.Int64("programs", work.Programs), slog.Int64("requests", work.Requests))
}

// Subject tells which volume a call is about: its name in Kubernetes, and that on the array. Either is "" where the words
// of the call and the journal do not tell.
func (d *Driver) Subject(args []string) (pv, volume string) {
	index := findVerb(args[0])
	if index < 0 || len(args)-1 != len(Verbs()[index].Args) {
		return "", ""
	}
	for i, arg := range Verbs()[index].Args {
		word := args[i+1]
		switch {
		case arg == argOptions:
			v, err := d.volume(word)
			if err == nil {
				return v.Name, v.AppInstance
			}
			pv = subjectName(v.Name)
		case arg == argVolume:
			pv = subjectName(word)
		case arg == "DIR" && pv == "":
			pv, _, _ = volumeAt(word)
		}
	}
	if r, found := d.journal().read(pv); pv != "" && found {
		return r.Name, r.AppInstance
	}
	return pv, ""
}

// subjectName keeps what is no name out of the log.
func subjectName(name string) string {
	if checkVolumeName(name) != nil {
		return ""
	}
	return name
}

// VolumesHere is the number of volumes in the journal.
func (d *Driver) VolumesHere() int { return len(d.journal().used()) }
