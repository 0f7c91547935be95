package provisioner

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"datera-flexvolume/driver"
)

func TestIdentityOfTheProvisionersCluster(t *testing.T) {
	const uid = "0d3c1b7e-5f0a-4f39-9a53-6a1f0c3f4d21"
	forbidden := apierrors.NewForbidden(v1.Resource("namespaces"), "kube-system", errors.New("not yours"))
	tests := map[string]struct {
		config  driver.Config
		answers []error // nil: the namespace
		want    []string
		fails   string // the first
		asked   int
		warned  int
	}{
		"the UID of kube-system, asked once":       {driver.Config{Cluster: "kubernetes"}, []error{nil, nil}, []string{uid, uid}, "", 1, 0},
		"what is configured":                       {driver.Config{Cluster: "kubernetes", ClusterID: "own"}, []error{nil}, []string{"own"}, "", 0, 0},
		"the name, where it may not ask":           {driver.Config{Cluster: "prod"}, []error{forbidden, forbidden}, []string{"prod", "prod"}, "", 2, 1},
		"the UID, when the right was given later":  {driver.Config{Cluster: "prod"}, []error{forbidden, nil}, []string{"prod", uid}, "", 2, 1},
		"nothing, while the API server is away":    {driver.Config{Cluster: "prod"}, []error{errors.New("connection refused"), nil}, []string{"", uid}, "connection refused", 2, 0},
		"a namespace without a UID is no identity": {driver.Config{Cluster: "prod"}, []error{errNoUID, nil}, []string{"", uid}, "has no UID", 2, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			client, asked := fake.NewClientset(), 0
			client.PrependReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
				get := action.(clienttesting.GetAction)
				require.Equal(t, "get namespaces kube-system", get.GetVerb()+" "+get.GetResource().Resource+" "+get.GetName())
				answer := test.answers[asked]
				asked++
				switch {
				case errors.Is(answer, errNoUID):
					return true, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system"}}, nil
				case answer != nil:
					return true, nil, answer
				}
				return true, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: uid}}, nil
			})
			var log bytes.Buffer
			identity := &Identity{Client: client, Log: slog.New(slog.NewTextHandler(&log, nil))}
			for i, want := range test.want {
				config, err := identity.Of(test.config)
				if want == "" {
					require.ErrorContains(t, err, test.fails)
					require.ErrorContains(t, err, "set cluster_id in datera-config")
					continue
				}
				require.NoError(t, err)
				require.Equal(t, want, config.Identity(), "at call %d", i)
				require.Equal(t, test.config.Cluster, config.Cluster)
			}
			require.Equal(t, test.asked, asked)
			require.Equal(t, test.warned, strings.Count(log.String(), "known by its name alone"))
		})
	}
}

var errNoUID = errors.New("no UID")
