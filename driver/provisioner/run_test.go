package provisioner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubetesting "k8s.io/client-go/testing"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller/metrics"
)

// replica is a running provisioner, with the controller that a cluster has.
type replica struct {
	w    *world
	log  *safeBuffer
	stop context.CancelFunc
	done chan error
}

func (w *world) start(change ...func(*Settings)) *replica {
	ctx, stop := context.WithCancel(context.Background())
	r := &replica{w: w, log: &safeBuffer{}, stop: stop, done: make(chan error, 1)}
	settings := Settings{
		Client: w.kube, Driver: w.driver, Namespace: namespace, LeaderElect: true, HealthListen: "127.0.0.1:0", Workers: 2,
		Log: slog.New(slog.NewJSONHandler(r.log, nil)),
		pace: pace{
			retry: 10 * time.Millisecond, longestRetry: 100 * time.Millisecond, journal: 20 * time.Millisecond,
			lease: 4 * time.Second, renew: 3 * time.Second, poll: 50 * time.Millisecond,
		},
	}
	for _, c := range change {
		c(&settings)
	}
	go func() { r.done <- Run(ctx, settings) }()
	w.t.Cleanup(func() {
		stop()
		<-r.done
	})
	return r
}

// end stops a replica as SIGTERM does.
func (r *replica) end() {
	r.stop()
	err := <-r.done
	r.done <- err // for the cleanup
	require.NoError(r.w.t, err)
}

func (w *world) await(what string, condition func() bool) {
	w.t.Helper()
	patience := time.After(30 * time.Second)
	for w.settle(); !condition(); w.settle() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-patience:
			require.FailNow(w.t, "waited in vain for "+what)
		}
	}
}

// get asks a replica's health server.
func (r *replica) get(path string) (int, string) {
	var address string
	r.w.await("the health server's address in the log", func() bool {
		address = r.log.find("answering health checks", "address")
		return address != ""
	})
	response, err := http.Get("http://" + address + path)
	require.NoError(r.w.t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(r.w.t, err)
	return response.StatusCode, string(body)
}

type safeBuffer struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (b *safeBuffer) Write(text []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.Write(text)
}

// find is an attribute of the first line with a message.
func (b *safeBuffer) find(message, attribute string) string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	for line := range strings.Lines(b.text.String()) {
		var attributes map[string]any
		if json.Unmarshal([]byte(line), &attributes) == nil && attributes["msg"] == message {
			text, _ := attributes[attribute].(string)
			return text
		}
	}
	return ""
}

// forUs is what the cluster's controllers write on a claim whose class is the provisioner's.
func forUs(claim *v1.PersistentVolumeClaim) {
	claim.Annotations = map[string]string{"volume.kubernetes.io/storage-provisioner": Name}
}

func (w *world) eventsOn(claim string) string {
	list, err := w.kube.CoreV1().Events(theNamespace).List(context.Background(), metav1.ListOptions{})
	require.NoError(w.t, err)
	var text strings.Builder
	for _, event := range list.Items {
		if event.InvolvedObject.Name == claim {
			text.WriteString(event.Type + " " + event.Reason + " " + event.Message + "\n")
		}
	}
	return text.String()
}

func TestRun(t *testing.T) {
	w := newWorld(t, aClass(nil))
	r := w.start()
	w.await("leading", func() bool { _, body := r.get("/healthz"); return strings.Contains(body, `"leading":true`) })

	w.create(aClaim(theClaim, "1500Mi", forUs))
	w.await("the claim is bound", func() bool { return w.claim(theClaim).Spec.VolumeName != "" })
	pv := w.pv(w.claim(theClaim).Spec.VolumeName)
	require.Equal(t, Name, pv.Annotations[annotationProvisionedBy])
	require.NotEmpty(t, pv.Finalizers, "nobody deletes the PersistentVolume before its volume")
	w.await("the events", func() bool {
		said := w.eventsOn(theClaim)
		return strings.Contains(said, "Normal ProvisioningSucceeded") && strings.Contains(said, "Normal VolumeSize asked for 1500Mi, the volume has 2Gi")
	})
	w.await("an empty journal", func() bool { return len(w.journal()) == 0 })

	block := v1.PersistentVolumeBlock
	w.create(aClaim("block", "1Gi", forUs, func(claim *v1.PersistentVolumeClaim) { claim.Spec.VolumeMode = &block }))
	w.await("the reason", func() bool {
		return strings.Contains(w.eventsOn("block"), "Warning ProvisioningFailed volumeMode Block: FlexVolume knows file systems only")
	})

	_, measures := r.get("/metrics")
	require.Contains(t, measures, `controller_persistentvolumeclaim_provision_total{class="datera",source=""} 1`)
	require.Contains(t, measures, "datera_provisioner_leader 1")

	w.deleteClaim(theClaim)
	w.await("nothing", func() bool { return len(w.pvs())+len(w.array.AppInstances(root)) == 0 })
	r.end()
	require.Empty(t, w.leader(), "the Lease was not given back")
}

func (w *world) create(claim *v1.PersistentVolumeClaim) {
	_, err := w.kube.CoreV1().PersistentVolumeClaims(claim.Namespace).Create(context.Background(), claim, metav1.CreateOptions{})
	require.NoError(w.t, err)
}

func (w *world) leader() string {
	lease, err := w.kube.CoordinationV1().Leases(namespace).Get(context.Background(), leaseName, metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

// A volume in use is kept, with the reason on its PersistentVolume, and deleted when it is free.
func TestRunRetriesDeletion(t *testing.T) {
	w := newWorld(t, aClass(nil))
	w.start()
	w.create(aClaim(theClaim, "1Gi", forUs))
	w.await("the claim is bound", func() bool { return w.claim(theClaim).Spec.VolumeName != "" })
	volume := w.array.AppInstances(root)[0]
	require.NoError(t, w.array.SetActiveInitiators(volume, initiator))
	w.deleteClaim(theClaim)
	w.await("the reason", func() bool {
		list, err := w.kube.CoreV1().Events("").List(context.Background(), metav1.ListOptions{})
		require.NoError(t, err)
		for _, event := range list.Items {
			if event.Reason == "VolumeFailedDelete" && strings.Contains(event.Message, "is in use by "+initiator) {
				return true
			}
		}
		return false
	})
	require.Equal(t, []string{volume}, w.array.AppInstances(root))
	require.NoError(t, w.array.SetActiveInitiators(volume))
	w.await("nothing", func() bool { return len(w.pvs())+len(w.array.AppInstances(root)) == 0 })
}

// With WaitForFirstConsumer nothing is made before the scheduler has chosen a node.
func TestRunWaitsForFirstConsumer(t *testing.T) {
	wait := storage.VolumeBindingWaitForFirstConsumer
	w := newWorld(t, aClass(nil, func(class *storageClass) { class.VolumeBindingMode = &wait }))
	w.start()
	w.create(aClaim("later", "1Gi", forUs))
	w.create(aClaim(theClaim, "1Gi", forUs, func(claim *v1.PersistentVolumeClaim) {
		claim.Annotations["volume.kubernetes.io/selected-node"] = "node-1"
	}))
	w.await("the claim is bound", func() bool { return w.claim(theClaim).Spec.VolumeName != "" })
	require.Len(t, w.array.AppInstances(root), 1)
	require.Nil(t, w.pvs()[0].Spec.NodeAffinity, "the volume is for every node")
}

// The answer to saving the PersistentVolume is lost, or it cannot be saved at first.
func TestRunSavesForEver(t *testing.T) {
	for name, carriedOut := range map[string]bool{"refused": false, "answer lost": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, aClass(nil))
			var mutex sync.Mutex
			failures := 3
			w.kube.PrependReactor("create", "persistentvolumes", func(action kubetesting.Action) (bool, runtime.Object, error) {
				mutex.Lock()
				defer mutex.Unlock()
				if failures == 0 {
					return false, nil, nil
				}
				failures--
				if carriedOut {
					_, _, _ = kubetesting.ObjectReaction(w.kube.Tracker())(action)
				}
				return true, nil, errors.New("no answer")
			})
			w.start()
			w.create(aClaim(theClaim, "1Gi", forUs))
			w.await("the claim is bound", func() bool { return w.claim(theClaim).Spec.VolumeName != "" })
			require.Len(t, w.array.AppInstances(root), 1)
		})
	}
}

func TestReplicaTakesOver(t *testing.T) {
	w := newWorld(t, aClass(nil))
	first := w.start()
	w.await("leading", func() bool { _, body := first.get("/healthz"); return strings.Contains(body, `"leading":true`) })
	second := w.start()
	status, body := second.get("/healthz")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, `{"status":"ok","leading":false`)
	first.end()
	w.create(aClaim(theClaim, "1Gi", forUs))
	w.await("the claim is bound", func() bool { return w.claim(theClaim).Spec.VolumeName != "" })
	_, body = second.get("/healthz")
	require.Contains(t, body, `"leading":true,"leader":"`+w.leader()+`"`)

	third := w.start()
	third.get("/healthz")
	third.end() // without ever having led
}

func TestLeaderThatLosesTheLeaseEnds(t *testing.T) {
	w := newWorld(t, aClass(nil))
	var away atomic.Bool
	w.kube.PrependReactor("*", "leases", func(kubetesting.Action) (bool, runtime.Object, error) {
		return away.Load(), nil, errors.New("away")
	})
	r := w.start()
	w.await("leading", func() bool { return w.leader() != "" })
	away.Store(true)
	err := <-r.done
	r.done <- err
	require.ErrorContains(t, err, "the Lease kube-system/datera-provisioner was lost")
}

func TestRunWithoutElection(t *testing.T) {
	w := newWorld(t, aClass(nil))
	r := w.start(func(s *Settings) { s.LeaderElect = false })
	w.create(aClaim(theClaim, "1Gi", forUs))
	w.await("the claim is bound", func() bool { return w.claim(theClaim).Spec.VolumeName != "" })
	_, body := r.get("/healthz")
	require.JSONEq(t, `{"status":"ok","leading":true}`, body)
	require.Empty(t, w.leader())
	r.end()
}

func TestHealthAddressThatCannotBe(t *testing.T) {
	for _, elect := range []bool{false, true} {
		err := Run(t.Context(), Settings{Client: newWorld(t).kube, Namespace: namespace, HealthListen: "256.0.0.1:1", LeaderElect: elect, Log: slog.New(slog.DiscardHandler)})
		require.ErrorContains(t, err, "listen for health checks on 256.0.0.1:1")
	}
}

// lapsed is a leader whose Lease ran out without his noticing.
type lapsed struct{ alone }

func (lapsed) Check(time.Duration) error { return errors.New("the lease ran out") }

func TestLeaderThatCannotRenewIsUnhealthy(t *testing.T) {
	answer := httptest.NewRecorder()
	healthHandler(metrics.New("controller"), time.Second, lapsed{}).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/healthz", nil))
	require.Equal(t, http.StatusServiceUnavailable, answer.Code)
	require.JSONEq(t, `{"status":"the lease ran out","leading":true}`, answer.Body.String())
}
