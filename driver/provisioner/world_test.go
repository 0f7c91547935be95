package provisioner

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"datera-flexvolume/datera"
	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/driver"
)

const (
	namespace    = "kube-system"
	theNamespace = "default"
	theClaim     = "data"
	root         = "/root"
)

// world is an array, a Kubernetes API and a provisioner between them. What Kubernetes' own
// controllers would do, bind and release, is done by settle.
type world struct {
	t       *testing.T
	array   *dateratest.Server
	kube    *fake.Clientset
	config  driver.Config
	events  *record.FakeRecorder
	group   string                  // of the volume that was attached
	process atomic.Pointer[process] // nil: calls are the test's own; those that were broken off may still look
}

func newWorld(t *testing.T, objects ...runtime.Object) *world {
	t.Helper()
	array, err := dateratest.New(dateratest.Options{})
	require.NoError(t, err)
	w := &world{t: t, array: array, kube: fake.NewSimpleClientset(objects...), events: record.NewFakeRecorder(100)}
	front := httptest.NewServer(http.HandlerFunc(w.serveArray))
	t.Cleanup(func() {
		front.Close()
		require.NoError(t, array.Close(context.Background()))
	})
	w.kube.PrependReactor("*", "*", w.reactKube)
	w.config = driver.Config{
		ManagementIP: strings.TrimPrefix(front.URL, "http://"), Scheme: "http", Username: "admin", Password: "password",
		Tenant: root, APIVersion: "2.2", Cluster: "kubernetes", Attach: driver.AttachController, RunDir: t.TempDir(),
	}
	return w
}

func (w *world) provisioner() *Provisioner {
	return &Provisioner{Client: w.kube, Driver: w.driver, Namespace: namespace, Events: w.events, Log: slog.New(slog.DiscardHandler)}
}

func (w *world) driver() *driver.Driver {
	config := w.config
	return &driver.Driver{
		Config: config, Log: slog.New(slog.DiscardHandler),
		OpenArray: func(scheme string, credentials driver.Credentials, tenant string) (driver.Array, error) {
			return datera.New(config.ArrayClient(scheme, credentials, tenant))
		},
	}
}

// process is one run of the provisioner. It can be made to end at any of its calls, of the
// array or of Kubernetes: before the call is carried out, or before its answer is there.
type process struct {
	endAt      int // 1 is the first call; 0: it does not end
	carriedOut bool
	end        context.CancelFunc

	mutex sync.Mutex
	calls []string
	ended bool
}

// call tells whether a call is carried out, and whether the answer arrives.
func (p *process) call(name string) (carriedOut, answered bool) {
	if p == nil {
		return true, true
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.ended {
		return false, false
	}
	p.calls = append(p.calls, name)
	if len(p.calls) != p.endAt {
		return true, true
	}
	p.ended = true
	p.end()
	return p.carriedOut, false
}

func (p *process) last() string { return p.calls[len(p.calls)-1] }

func (w *world) serveArray(answer http.ResponseWriter, request *http.Request) {
	carriedOut, answered := w.process.Load().call(request.Method + " " + request.URL.Path)
	kept := httptest.NewRecorder()
	if carriedOut {
		w.array.ServeHTTP(kept, request)
	}
	if !answered {
		panic(http.ErrAbortHandler)
	}
	answer.WriteHeader(kept.Code)
	_, _ = answer.Write(kept.Body.Bytes())
}

func (w *world) reactKube(action kubetesting.Action) (handled bool, result runtime.Object, err error) {
	if action.GetResource().Resource == "events" {
		return false, nil, nil // they come by themselves
	}
	carriedOut, answered := w.process.Load().call(action.GetVerb() + " " + action.GetResource().Resource)
	if answered {
		return false, nil, nil
	}
	if carriedOut {
		_, _, _ = kubetesting.ObjectReaction(w.kube.Tracker())(action)
	}
	return true, nil, errors.New("the process has ended")
}

// run lets a provisioner do what there is to do, as the controller would, until it has done
// all or has ended. It returns the errors of claims and volumes.
func (w *world) run(p *process) error {
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	p.end = cancel
	provisioner := w.provisioner()
	errs := []error{w.as(p, func() error { return provisioner.FinishInterrupted(ctx) })}
	for _, claim := range w.claims() {
		if claim.Spec.VolumeName != "" || w.pv(nameOf(claim)) != nil {
			continue
		}
		errs = append(errs, w.as(p, func() error { return w.provision(ctx, provisioner, claim) }))
	}
	w.settle()
	for _, pv := range w.pvs() {
		if pv.Status.Phase != v1.VolumeReleased || pv.Spec.PersistentVolumeReclaimPolicy != v1.PersistentVolumeReclaimDelete {
			continue
		}
		errs = append(errs, w.as(p, func() error {
			if err := provisioner.Delete(ctx, &pv); err != nil {
				return err
			}
			return w.kube.CoreV1().PersistentVolumes().Delete(ctx, pv.Name, metav1.DeleteOptions{})
		}))
	}
	return errors.Join(errs...)
}

// as makes the calls in do those of a process.
func (w *world) as(p *process, do func() error) error {
	before := w.process.Swap(p)
	defer w.process.Store(before)
	return do()
}

func (w *world) provision(ctx context.Context, p *Provisioner, claim v1.PersistentVolumeClaim) error {
	pv, state, err := p.Provision(ctx, w.options(claim))
	require.Equal(w.t, controller.ProvisioningFinished, state)
	if err != nil {
		return err
	}
	_, err = w.kube.CoreV1().PersistentVolumes().Create(ctx, pv, metav1.CreateOptions{})
	return err
}

func (w *world) options(claim v1.PersistentVolumeClaim) controller.ProvisionOptions {
	var class *storageClass
	require.NoError(w.t, w.as(nil, func() (err error) {
		class, err = w.kube.StorageV1().StorageClasses().Get(w.t.Context(), *claim.Spec.StorageClassName, metav1.GetOptions{})
		return err
	}))
	return controller.ProvisionOptions{PVC: &claim, StorageClass: class, PVName: nameOf(claim)}
}

func nameOf(claim v1.PersistentVolumeClaim) string { return "pvc-" + string(claim.UID) }

// settle binds PersistentVolumes to their claims, and releases those whose claim has gone.
func (w *world) settle() {
	for _, pv := range w.pvs() {
		claim := w.claim(pv.Spec.ClaimRef.Name)
		phase := v1.VolumeReleased
		if claim != nil && claim.UID == pv.Spec.ClaimRef.UID {
			phase = v1.VolumeBound
			if claim.Spec.VolumeName == "" {
				w.changeClaim(claim.Name, func(claim *v1.PersistentVolumeClaim) {
					claim.Spec.VolumeName, claim.Status.Phase, claim.Status.Capacity = pv.Name, v1.ClaimBound, pv.Spec.Capacity
				})
			}
		}
		if pv.Status.Phase != phase {
			w.changePV(pv.Name, func(pv *v1.PersistentVolume) { pv.Status.Phase = phase })
		}
	}
}

// changePV changes a PersistentVolume, if it is there still.
func (w *world) changePV(name string, change func(*v1.PersistentVolume)) {
	volumes := w.kube.CoreV1().PersistentVolumes()
	w.stillThere(func() error {
		pv, err := volumes.Get(context.Background(), name, metav1.GetOptions{})
		if err == nil {
			change(pv)
			_, err = volumes.Update(context.Background(), pv, metav1.UpdateOptions{})
		}
		return err
	})
}

func (w *world) changeClaim(name string, change func(*v1.PersistentVolumeClaim)) {
	claims := w.kube.CoreV1().PersistentVolumeClaims(theNamespace)
	w.stillThere(func() error {
		claim, err := claims.Get(context.Background(), name, metav1.GetOptions{})
		if err == nil {
			change(claim)
			_, err = claims.Update(context.Background(), claim, metav1.UpdateOptions{})
		}
		return err
	})
}

func (w *world) stillThere(change func() error) {
	if err := change(); !apierrors.IsNotFound(err) {
		require.NoError(w.t, err)
	}
}

func (w *world) pvs() []v1.PersistentVolume {
	list, err := w.kube.CoreV1().PersistentVolumes().List(context.Background(), metav1.ListOptions{})
	require.NoError(w.t, err)
	return list.Items
}

func (w *world) pv(name string) *v1.PersistentVolume {
	for _, pv := range w.pvs() {
		if pv.Name == name {
			return &pv
		}
	}
	return nil
}

func (w *world) claims() []v1.PersistentVolumeClaim {
	list, err := w.kube.CoreV1().PersistentVolumeClaims("").List(context.Background(), metav1.ListOptions{})
	require.NoError(w.t, err)
	return list.Items
}

func (w *world) claim(name string) *v1.PersistentVolumeClaim {
	for _, claim := range w.claims() {
		if claim.Name == name {
			return &claim
		}
	}
	return nil
}

func (w *world) journal() []v1.ConfigMap {
	list, err := w.kube.CoreV1().ConfigMaps(namespace).List(context.Background(), metav1.ListOptions{})
	require.NoError(w.t, err)
	return list.Items
}

func (w *world) add(object runtime.Object) { require.NoError(w.t, w.kube.Tracker().Add(object)) }

func (w *world) deleteClaim(name string) {
	require.NoError(w.t, w.kube.CoreV1().PersistentVolumeClaims(theNamespace).Delete(context.Background(), name, metav1.DeleteOptions{}))
}

// said are the events so far.
func (w *world) said() (events []string) {
	for {
		select {
		case event := <-w.events.Events:
			events = append(events, event)
		default:
			return events
		}
	}
}

// made provisions a claim that cannot fail.
func (w *world) made(claim *v1.PersistentVolumeClaim) *v1.PersistentVolume {
	w.t.Helper()
	w.add(claim)
	require.NoError(w.t, w.run(&process{}))
	pv := w.pv(nameOf(*claim))
	require.NotNil(w.t, pv)
	return pv
}

func aClass(parameters map[string]string, change ...func(*storageClass)) *storageClass {
	class := &storageClass{ObjectMeta: metav1.ObjectMeta{Name: "datera"}, Provisioner: Name, Parameters: parameters}
	for _, c := range change {
		c(class)
	}
	return class
}

type storageClass = storage.StorageClass

func named(name string) func(*storageClass) { return func(class *storageClass) { class.Name = name } }

func ofClass(name string) func(*v1.PersistentVolumeClaim) {
	return func(claim *v1.PersistentVolumeClaim) { claim.Spec.StorageClassName = &name }
}

func aClaim(name, size string, change ...func(*v1.PersistentVolumeClaim)) *v1.PersistentVolumeClaim {
	class := "datera"
	claim := &v1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: theNamespace, Name: name, UID: types.UID(uuid.NewSHA1(uuid.Nil, []byte(name)).String())},
		Spec: v1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
			Resources:        v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse(size)}},
		},
	}
	for _, c := range change {
		c(claim)
	}
	return claim
}

func cloneOf(name string) func(*v1.PersistentVolumeClaim) {
	return func(claim *v1.PersistentVolumeClaim) {
		claim.Spec.DataSource = &v1.TypedLocalObjectReference{Kind: kindClaim, Name: name}
	}
}

func modes(modes ...v1.PersistentVolumeAccessMode) func(*v1.PersistentVolumeClaim) {
	return func(claim *v1.PersistentVolumeClaim) { claim.Spec.AccessModes = modes }
}
