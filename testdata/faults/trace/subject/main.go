// Command subject makes one step of each kind that the tracer is tried on, in a folder and at a server that its arguments
// name. It ends with the first that fails.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

func main() {
	dir, server := os.Args[1], os.Args[2]
	in := func(name string) string { return filepath.Join(dir, name) }
	var file *os.File
	for _, step := range []func() error{
		func() error { return os.MkdirAll(in("made"), 0o700) },
		func() (err error) { file, err = os.Create(in("made/file")); return err },
		func() error { _, err := file.WriteString("written"); return err },
		func() error { return syscall.Flock(int(file.Fd()), syscall.LOCK_EX) },
		func() error { return os.Rename(in("made/file"), in("made/renamed")) },
		func() error { return exec.Command("touch", in("touched")).Run() },
		func() error { return get(server + "/hello") },
		func() error { return os.Remove(in("made/renamed")) },
		func() error { return os.Remove(in("made")) },
		// What changes nothing is no step.
		func() error { return os.MkdirAll(dir, 0o700) },
		func() error { _ = os.Remove(in("nothing")); return nil },
		func() error { return os.WriteFile(in("log"), []byte("ignored"), 0o600) },
		func() error { return exec.Command("true").Run() },
	} {
		if err := step(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	fmt.Println("done")
}

func get(url string) error {
	response, err := http.Get(url)
	if err == nil {
		err = response.Body.Close()
	}
	return err
}
