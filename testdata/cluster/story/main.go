// Command story plays the seed's story on a real cluster, checks each step and shows it. With -deploy it begins with a cluster
// that has no driver, and plays how an administrator brings it there by the manifests in deploy. With -hold it starts the
// cluster, tells how to reach it and keeps it until it is interrupted.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"datera-flexvolume/testdata/cluster"
)

func main() {
	hold := flag.Bool("hold", false, "start the cluster and keep it until interrupted")
	bin := flag.String("bin", "bin", "folder of iscsi and datera-sim")
	deploy := flag.Bool("deploy", false, "play the deployment instead; wants build/image.tar and, of the next version, build/next/image.tar")
	acts := flag.String("acts", "", "play these acts alone: scale, replace, move, kubelet-restart, kubelet-down, kubelet-crash, attach-crash, share, grow, partition, power;"+
		"\nwith -deploy: seed, growth, clone, delete-retain, wait-for-first-consumer, refused, upgrade, kill, secret, control-plane, uninstall")
	build := flag.String("build", "build/cluster", "folder into which testdata/cluster/build.sh has built")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *build, *acts, *hold, *deploy); err != nil {
		fmt.Fprintln(os.Stderr, "\ncluster:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, build, acts string, hold, deploy bool) error {
	began := time.Now()
	c, err := cluster.Start(ctx, cluster.Options{
		Bin: bin, Build: build, Folder: build + "/run", Nodes: nodes, Log: os.Stdout, Bare: deploy,
	})
	if err != nil {
		return err
	}
	defer c.Stop()
	fmt.Printf("the cluster is ready after %.0f s\n", time.Since(began).Seconds())
	if hold {
		fmt.Printf("\n  export KUBECONFIG=%s\n  kubectl get nodes    # or %s/bin/kubernetes kubectl\n\n^C ends it.\n", c.Kubeconfig(), build)
		<-ctx.Done()
		return nil
	}
	s, err := newStory(ctx, c, os.Stdout)
	if err != nil {
		return err
	}
	if deploy {
		s.deploy(acts)
	} else {
		s.play(acts)
	}
	return s.report()
}

// play is the whole story, or its beginning, its end and the acts that are named.
func (s *story) play(acts string) {
	w := new(web)
	s.createStatefulSet(w)
	for _, act := range []struct {
		name string
		play func(*web)
	}{
		{"scale", s.scaleStatefulSet}, {"replace", s.replace}, {"move", s.move},
		{"kubelet-restart", s.restartKubelet}, {"kubelet-down", s.deleteWhileKubeletIsDown}, {"kubelet-crash", s.crashKubeletInMount},
		{"attach-crash", s.crashMidAttach}, {"share", s.share}, {"grow", s.grow}, {"partition", s.partition}, {"power", s.cutPower},
	} {
		if s.err == nil && (acts == "" || slices.Contains(strings.Split(acts, ","), act.name)) {
			act.play(w)
		}
	}
	s.deleteEverything(w)
}
