package provisioner

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"datera-flexvolume/driver"
)

// identityTime bounds the question which cluster this is.
const identityTime = 10 * time.Second

// Identity finds out which cluster this is: by the UID of the namespace kube-system, which a cluster keeps for life.
type Identity struct {
	Client kubernetes.Interface
	Log    *slog.Logger

	mutex   sync.Mutex
	found   string
	refused bool // and that was said
}

// Of gives a configuration the cluster's identity, unless it has one. Where the provisioner may not ask, the cluster's name has
// to do; where the answer does not come, it is an error: with another identity than the nodes' it would find no claims of theirs.
func (i *Identity) Of(config driver.Config) (driver.Config, error) {
	if config.ClusterID != "" {
		return config, nil
	}
	i.mutex.Lock()
	defer i.mutex.Unlock()
	if i.found == "" {
		if err := i.ask(); err != nil {
			return config, err
		}
	}
	config.ClusterID = i.found
	return config, nil
}

func (i *Identity) ask() error {
	ctx, cancel := context.WithTimeout(context.Background(), identityTime)
	defer cancel()
	namespace, err := i.Client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	switch {
	case apierrors.IsForbidden(err):
		if !i.refused {
			i.Log.Warn("the cluster is known by its name alone, and clusters of one name on an array cannot be told apart: "+
				"set cluster_id in datera-config, or apply deploy/base/identity.yaml", "err", err)
		}
		i.refused = true
		return nil
	case err != nil:
		return fmt.Errorf("find the cluster's identity, the UID of the namespace %s: %w; or set cluster_id in datera-config", metav1.NamespaceSystem, err)
	case namespace.UID == "":
		return fmt.Errorf("the namespace %s has no UID: set cluster_id in datera-config", metav1.NamespaceSystem)
	}
	i.found = string(namespace.UID)
	return nil
}
