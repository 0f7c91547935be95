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
	"gopkg.in/natefinch/lumberjack.v2"
	"k8s.io/klog/v2"

	"datera-flexvolume/driver"
)

// serve answers one call of kubelet: one line of JSON on the stdout that kubelet reads,
// nothing on its stderr, exit status 0.
func serve(args []string) {
	reply := takeStdout()
	config, configErr := loadConfig()
	if driver.AnswersAtOnce(args) {
		_, _ = reply.Write((&driver.Driver{Config: config}).Serve(context.Background(), args).Line())
		return
	}
	log, closeLog := openLog(config.Log)
	w := wire(log.With("call", callID(), "verb", args[0]), config, configErr)
	ctx, cancel := callContext(context.Background())
	begin := time.Now()
	answer := w.driver.Serve(ctx, args)
	_, _ = reply.Write(answer.Line())
	w.driver.Log.Info("answered", "status", answer.Status, "message", answer.Message, "device", answer.Device,
		"seconds", time.Since(begin).Seconds(), "programs", w.programs.Started(), "requests", w.arrays.requests())
	cancel()
	closeLog()
}

// takeStdout keeps kubelet's pipe for the reply alone, before anything else can write to
// it. kubelet reads stdout and stderr together, so both lead nowhere from here on, for
// this process and the programs that it starts.
func takeStdout() io.Writer {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return os.Stdout
	}
	kept, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return os.Stdout
	}
	for _, standard := range []int{0, 1, 2} {
		_ = unix.Dup3(int(null.Fd()), standard, 0)
	}
	return os.NewFile(uintptr(kept), "reply")
}

// openLog writes JSON lines to the rotated log, and what libraries and the runtime say on
// stderr into a file beside it. A log that cannot be written is done without.
func openLog(config driver.LogConfig) (*slog.Logger, func()) {
	if config.Path == "" {
		return slog.New(slog.DiscardHandler), func() {}
	}
	if err := os.MkdirAll(filepath.Dir(config.Path), 0o750); err != nil {
		return slog.New(slog.DiscardHandler), func() {}
	}
	if stderr, err := os.OpenFile(config.Path+".stderr", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err == nil {
		_ = unix.Dup3(int(stderr.Fd()), 2, 0)
		_ = stderr.Close()
	}
	file := &lumberjack.Logger{Filename: config.Path, MaxSize: config.MaxSizeMiB, MaxBackups: config.MaxBackups}
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
