package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"datera-flexvolume/driver"
	"datera-flexvolume/driver/calllog"
	"datera-flexvolume/driver/metrics"
)

// serve answers one call of kubelet: one line of JSON on the stdout that kubelet reads,
// nothing on its stderr, exit status 0. A person may want the call explained there.
func serve(args []string, explain bool) driver.Status {
	reply, stderr := takeStandard(explain)
	config, configErr := loadConfig()
	asked := &driver.Driver{Config: config}
	if driver.AnswersAtOnce(args) {
		answer := asked.Serve(context.Background(), args)
		_, _ = reply.Write(answer.Line())
		return answer.Status
	}
	log, closeLog := openLog(config.Log)
	if explain {
		log = slog.New(slog.NewMultiHandler(log.Handler(), driver.NewExplanation(stderr, asked.SecretsOf(args)...)))
	}
	pv, volume := asked.Subject(args)
	w := wire(log.With("call", callID(), "verb", args[0], "pv", pv, "volume", volume), config, configErr)
	ctx, cancel := callContext(context.Background())
	begin := time.Now()
	answer := w.driver.Serve(ctx, args)
	_, _ = reply.Write(answer.Line())
	work := driver.Work{Duration: time.Since(begin), Programs: w.programs.Started(), Requests: w.arrays.requests()}
	w.driver.LogAnswer(answer, work)
	cancel()
	w.count(metrics.Call{Verb: args[0], Success: answer.Status == driver.Success, Work: work})
	closeLog()
	return answer.Status
}

// count adds a call to the metrics, where they are wanted. That it cannot is no reason to fail.
func (w *wiring) count(call metrics.Call) {
	config := w.driver.Config
	if config.Metrics == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), metrics.RecordTime)
	defer cancel()
	recorder := metrics.Recorder{
		Path: config.Metrics, Dir: filepath.Join(config.RunDir, "metrics"), Version: version,
		Volumes: w.driver.VolumesHere, Sessions: driver.Host{}.ISCSISessions,
	}
	if err := recorder.Record(ctx, call); err != nil {
		w.driver.Log.Warn("the call is not in the metrics", "error", err)
	}
}

// serveForPeople answers in the same way, and tells by the exit status, too, how it went.
func serveForPeople(args []string, explain bool) error {
	if serve(args, explain) != driver.Success {
		return errorStatus
	}
	return nil
}

// takeStandard keeps kubelet's pipe for the reply alone, before anything else can write to
// it. kubelet reads stdout and stderr together, so both lead nowhere from here on, for
// this process and the programs that it starts.
func takeStandard(withStderr bool) (reply, stderr io.Writer) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return os.Stdout, io.Discard
	}
	keptOut, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return os.Stdout, io.Discard
	}
	stderr = io.Discard
	if withStderr {
		if keptErr, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3); err == nil {
			stderr = os.NewFile(uintptr(keptErr), "stderr")
		}
	}
	for _, standard := range []int{0, 1, 2} {
		_ = unix.Dup3(int(null.Fd()), standard, 0)
	}
	return os.NewFile(uintptr(keptOut), "reply"), stderr
}

// openLog writes JSON lines to the rotated log, and what libraries and the runtime say on
// stderr into a file beside it. A log that cannot be written is done without.
func openLog(config driver.LogConfig) (*slog.Logger, func()) {
	if config.Path == "" {
		return slog.New(slog.DiscardHandler), func() {}
	}
	limits := calllog.Limits{Bytes: int64(config.MaxSizeMiB) << 20, Backups: config.MaxBackups, Age: time.Duration(config.MaxAgeDays) * 24 * time.Hour}
	file, err := calllog.Append(config.Path, limits)
	if err != nil {
		return slog.New(slog.DiscardHandler), func() {}
	}
	limits.Backups = 1
	if stderr, err := calllog.Append(config.Path+".stderr", limits); err == nil {
		_ = stderr.TakeOver(2)
		_ = stderr.Close()
	}
	var level slog.Level
	_ = level.UnmarshalText([]byte(config.Level))
	log := slog.New(slog.NewJSONHandler(file, &slog.HandlerOptions{Level: level}))
	klog.SetSlogLogger(log)
	return log, func() { _ = file.Close() }
}

// callID marks the lines of one call in the log.
func callID() string {
	var id [4]byte
	if _, err := rand.Read(id[:]); err != nil {
		return fmt.Sprint(os.Getpid())
	}
	return hex.EncodeToString(id[:])
}
