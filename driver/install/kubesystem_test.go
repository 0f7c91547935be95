package install

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const uid = "0d3c1b7e-5f0a-4f39-9a53-6a1f0c3f4d21"

// namespace is what an API server of Kubernetes 1.37 answers, abridged.
const namespace = `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"kube-system","uid":"` + uid + `","resourceVersion":"4",
"creationTimestamp":"2026-11-03T09:12:11Z","labels":{"kubernetes.io/metadata.name":"kube-system"}},"spec":{"finalizers":["kubernetes"]},"status":{"phase":"Active"}}`

const forbidden = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"namespaces \"kube-system\" is forbidden: ` +
	`User \"system:serviceaccount:datera-system:datera-iscsi\" cannot get resource \"namespaces\"","reason":"Forbidden","code":403}`

// newPod is a pod of a cluster whose API server answers so.
func newPod(t *testing.T, answer http.HandlerFunc) Pod {
	t.Helper()
	server := httptest.NewTLSServer(answer)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ca.crt"), authority, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "token"), []byte("canary-token\n"), 0o600))
	address, err := url.Parse(server.URL)
	require.NoError(t, err)
	environment := map[string]string{"KUBERNETES_SERVICE_HOST": address.Hostname(), "KUBERNETES_SERVICE_PORT": address.Port()}
	return Pod{Dir: dir, Getenv: func(name string) string { return environment[name] }}
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func TestClusterID(t *testing.T) {
	t.Parallel()
	var asked *http.Request
	pod := newPod(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r
		says(http.StatusOK, namespace)(w, r)
	})
	found, err := pod.ClusterID(t.Context())
	require.NoError(t, err)
	require.Equal(t, uid, found)
	require.Equal(t, "GET /api/v1/namespaces/kube-system", asked.Method+" "+asked.URL.String(), "the right to get this one object is all that it has")
	require.Equal(t, "Bearer canary-token", asked.Header.Get("Authorization"))
}

func TestClusterIDIsNotGuessed(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the token went elsewhere: %s", r.Header.Get("Authorization"))
	}))
	t.Cleanup(elsewhere.Close)
	tests := map[string]struct {
		answer http.HandlerFunc
		change func(*Pod)
		is     error
		says   string
	}{
		"no pod":                    {nil, func(p *Pod) { p.Getenv = func(string) string { return "" } }, ErrNoAPI, "not a pod"},
		"a pod without a token":     {nil, func(p *Pod) { p.Dir = t.TempDir() }, ErrNoAPI, "not a pod"},
		"no right to ask":           {says(http.StatusForbidden, forbidden), nil, ErrForbidden, "the ClusterRole datera-cluster-identity (deploy/base/identity.yaml) lets it"},
		"an unknown token":          {says(http.StatusUnauthorized, `{"kind":"Status","message":"Unauthorized","code":401}`), nil, ErrForbidden, "401 Unauthorized"},
		"an API server that is ill": {says(http.StatusInternalServerError, `{"kind":"Status","message":"etcdserver: request timed out"}`), nil, nil, "500 Internal Server Error etcdserver"},
		"a proxy":                   {says(http.StatusOK, "<html>hello</html>"), nil, nil, "is this the API server?"},
		"another object":            {says(http.StatusOK, `{"kind":"Namespace","metadata":{"name":"default","uid":"x"}}`), nil, nil, "is not the namespace kube-system"},
		"an object without a UID":   {says(http.StatusOK, `{"kind":"Namespace","metadata":{"name":"kube-system"}}`), nil, nil, "is not the namespace kube-system"},
		"nothing":                   {says(http.StatusOK, ""), nil, nil, "is not the namespace kube-system"},
		"a redirect":                {http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP, nil, nil, "302 Found"},
		"a CA that is none": {nil, func(p *Pod) { require.NoError(t, os.WriteFile(filepath.Join(p.Dir, "ca.crt"), []byte("x"), 0o600)) }, nil,
			"it holds no certificate"},
		"a server of another CA": {nil, func(p *Pod) {
			own, _ := os.ReadFile(filepath.Join(p.Dir, "token"))
			*p = Pod{Dir: t.TempDir(), Getenv: p.Getenv}
			require.NoError(t, os.WriteFile(filepath.Join(p.Dir, "token"), own, 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(p.Dir, "ca.crt"), []byte(foreignAuthority), 0o600))
		}, nil, "certificate signed by unknown authority"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer := test.answer
			if answer == nil {
				answer = says(http.StatusOK, namespace)
			}
			pod := newPod(t, answer)
			if test.change != nil {
				test.change(&pod)
			}
			found, err := pod.ClusterID(t.Context())
			require.Empty(t, found)
			require.ErrorContains(t, err, test.says)
			if test.is != nil {
				require.ErrorIs(t, err, test.is)
			} else {
				require.NotErrorIs(t, err, ErrForbidden)
				require.NotErrorIs(t, err, ErrNoAPI)
			}
			require.NotContains(t, err.Error(), "canary")
		})
	}
}

func FuzzReadNamespace(f *testing.F) {
	f.Add(200, []byte(namespace))
	f.Add(403, []byte(forbidden))
	f.Add(200, []byte(`{"kind":"Namespace","metadata":null}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		found, err := readNamespace(status, body)
		if (found == "") != (err != nil) || status != http.StatusOK && err == nil {
			t.Errorf("%d %q: %q, %v", status, body, found, err)
		}
	})
}

// foreignAuthority is a CA that signed nothing here.
const foreignAuthority = `-----BEGIN CERTIFICATE-----
MIIBejCCASGgAwIBAgIUAbMwhYJmf2pAzH9M/QIZ4CPZjO8wCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHYW5vdGhlcjAgFw0yNjEyMDEwNzU3MzdaGA8yMTI2MTEwNzA3
NTczN1owEjEQMA4GA1UEAwwHYW5vdGhlcjBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABBwfvTagjfVDRRnYQe3VPryi9I5Ils4vollhm35P/ylKwqJ/1tPWpO1qNTnE
9wYplvowxkN7yrQX8QyALzacrM+jUzBRMB0GA1UdDgQWBBR29Pq9fClXPDyeEt0+
ANi5WuU0uTAfBgNVHSMEGDAWgBR29Pq9fClXPDyeEt0+ANi5WuU0uTAPBgNVHRMB
Af8EBTADAQH/MAoGCCqGSM49BAMCA0cAMEQCIFwOq9YC3PMiMswRxfwCvqGgw6yj
cQg3BGMJ2gNGmxFiAiB6mO/sIVJhkIsmYxSMKQVyABkAzIm0VQh5bkSo8wBx1Q==
-----END CERTIFICATE-----
`
