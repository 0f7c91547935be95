package install

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Pod is where this process runs, if it runs in a pod.
type Pod struct {
	Getenv func(string) string
	Dir    string // of the service account's token and CA; the usual one unless set
}

var (
	// ErrNoAPI: there is no cluster to ask.
	ErrNoAPI = errors.New("no API server to ask")
	// ErrForbidden: the cluster does not answer this process.
	ErrForbidden = errors.New("the API server refuses the question")
)

const (
	serviceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"
	kubeSystem        = "kube-system"
	kubeSystemPath    = "/api/v1/namespaces/" + kubeSystem
	// apiTime bounds the question: what else is to be done goes on without the answer.
	apiTime = 5 * time.Second
	// longestAnswer is far beyond what a namespace has.
	longestAnswer = 1 << 20
)

// ClusterID is the UID of the namespace kube-system, which a cluster keeps for life and no other one has. It is one GET, by
// hand: a client of the whole API would be larger than all the rest of this program.
func (p Pod) ClusterID(ctx context.Context) (string, error) {
	host, port := p.Getenv("KUBERNETES_SERVICE_HOST"), p.Getenv("KUBERNETES_SERVICE_PORT")
	dir := cmp.Or(p.Dir, serviceAccountDir)
	token, tokenErr := os.ReadFile(filepath.Join(dir, "token"))
	if host == "" || port == "" || tokenErr != nil {
		return "", fmt.Errorf("%w: this is not a pod with a service account's token", ErrNoAPI)
	}
	authority, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(authority) {
		return "", fmt.Errorf("read the CA of the API server in %s: %w", dir, cmp.Or(err, errors.New("it holds no certificate")))
	}
	ctx, cancel := context.WithTimeout(ctx, apiTime)
	defer cancel()
	url := "https://" + net.JoinHostPort(host, port) + kubeSystemPath
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fmt.Errorf("ask the API server: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	request.Header.Set("Accept", "application/json")
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}} // and no proxy: the token is for the cluster
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		return "", fmt.Errorf("ask the API server: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, longestAnswer))
	if err != nil {
		return "", fmt.Errorf("ask the API server: GET %s: %w", url, err)
	}
	uid, err := readNamespace(response.StatusCode, body)
	if err != nil {
		return "", fmt.Errorf("ask the API server: GET %s: %w", url, err)
	}
	return uid, nil
}

// readNamespace takes the UID out of the answer, and nothing out of one that is not about the namespace.
func readNamespace(status int, body []byte) (string, error) {
	var answer struct {
		Kind     string `json:"kind"`
		Message  string `json:"message"`
		Metadata struct {
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"metadata"`
	}
	err := json.Unmarshal(body, &answer)
	switch {
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return "", fmt.Errorf("%w: %d %.300s; the ClusterRole datera-cluster-identity (deploy/base/identity.yaml) lets it", ErrForbidden, status, answer.Message)
	case status != http.StatusOK:
		return "", fmt.Errorf("%d %s %.300s", status, http.StatusText(status), answer.Message)
	case err != nil || answer.Kind != "Namespace" || answer.Metadata.Name != kubeSystem || answer.Metadata.UID == "":
		return "", fmt.Errorf("the answer is not the namespace %s: is this the API server?", kubeSystem)
	}
	return answer.Metadata.UID, nil
}
