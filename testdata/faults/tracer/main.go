// Command tracer runs a program, lists the steps by which it changes the world, and at one of them kills it, lets the step
// fail or holds it. It prints one line "held" when it holds a step, which SIGUSR1 ends, and then a report as JSON.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"datera-flexvolume/testdata/faults/trace"
)

// launch is the word by which the tracer starts itself, to become the program.
const launch = "launch"

func main() {
	if len(os.Args) > 1 && os.Args[1] == launch {
		fmt.Fprintln(os.Stderr, "tracer:", trace.Launch(os.Args[2:]))
		os.Exit(1)
	}
	at := flag.Int("at", 0, "number of the step; 0 only lists")
	do := flag.String("do", string(trace.Kill), "kill, kill-after, fail or hold")
	longest := flag.Duration("for", 10*time.Second, "longest hold")
	ignore := flag.String("ignore", "", "beginnings of paths that do not count, with commas")
	flag.Parse()
	release := make(chan struct{}, 1)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	go func() {
		<-signals
		release <- struct{}{}
	}()
	options := trace.Options{
		Launcher: []string{"/proc/self/exe", launch},
		Fault:    trace.Fault{At: *at, Do: trace.Action(*do), For: *longest},
		Held:     func() { fmt.Println("held") },
		Release:  release,
	}
	if *ignore != "" {
		options.Ignore = strings.Split(*ignore, ",")
	}
	report, err := trace.Run(options, flag.Args()...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tracer:", err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(report)
}
