// Command image makes the container image of the driver from its executables: without a daemon, without a base image,
// the same bytes whenever it is run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv("SOURCE_DATE_EPOCH"), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// run does what the arguments say and prints what it wrote.
func run(ctx context.Context, args []string, epoch string, out io.Writer) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "image [FLAGS] EXECUTABLE…: make a container image of static Go executables; the first is its entry point")
		flags.PrintDefaults()
	}
	output := flags.String("output", "image.tar", "the `FILE` to write, for ctr images import and docker load; the bill of materials is beside it, .cdx.json")
	tag := flags.String("tag", "datera-flexvolume:dev", "`NAME:TAG` of the image in the file")
	version := flags.String("version", "dev", "version of the executables")
	revision := flags.String("revision", "", "commit that they were built from")
	push := flags.String("push", "", "push to this `REFERENCE`, too, with the credentials of ~/.docker/config.json")
	if err := flags.Parse(args); err != nil {
		return err
	}
	created, err := parseEpoch(epoch)
	if err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("no executables given")
	}
	image, bill, err := build(contents{executables: flags.Args(), version: *version, revision: *revision, created: created})
	if err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	if err := write(image, *tag, *output); err != nil {
		return err
	}
	if err := os.WriteFile(billBeside(*output), bill, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s %s %s\n", *output, *tag, digest)
	if *push == "" {
		return nil
	}
	reference, err := name.ParseReference(*push)
	if err != nil {
		return err
	}
	if err := remote.Write(reference, image, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("push to %s: %w", reference, err)
	}
	_, err = fmt.Fprintf(out, "%s@%s\n", reference.Context(), digest)
	return err
}

// parseEpoch reads SOURCE_DATE_EPOCH: seconds since 1970, which every time in the image is.
func parseEpoch(text string) (time.Time, error) {
	if text == "" {
		return time.Unix(0, 0).UTC(), nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q: accepted are seconds since 1970", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// write replaces the file in one step.
func write(image v1.Image, tag, path string) error {
	reference, err := name.NewTag(tag)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	partial := path + ".part"
	if err := tarball.WriteToFile(partial, reference, image); err != nil {
		return errors.Join(err, os.Remove(partial))
	}
	return os.Rename(partial, path)
}

func billBeside(path string) string {
	return path[:len(path)-len(filepath.Ext(path))] + ".cdx.json"
}
