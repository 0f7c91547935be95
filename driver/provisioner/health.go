package provisioner

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller/metrics"
)

// serveHealth answers /healthz and /metrics until it is stopped.
func serveHealth(s Settings, measures metrics.Metrics, e election) (stop func(), err error) {
	if s.HealthListen == "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", s.HealthListen)
	if err != nil {
		return nil, fmt.Errorf("listen for health checks on %s: %w", s.HealthListen, err)
	}
	server := &http.Server{Handler: healthHandler(measures, s.pace.lease, e), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // ends when it is closed
	}()
	s.Log.Info("answering health checks", "address", listener.Addr().String())
	return func() {
		_ = server.Close()
		<-done
	}, nil
}

func healthHandler(measures metrics.Metrics, tolerable time.Duration, e election) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		measures.PersistentVolumeClaimProvisionTotal, measures.PersistentVolumeClaimProvisionFailedTotal, measures.PersistentVolumeClaimProvisionDurationSeconds,
		measures.PersistentVolumeDeleteTotal, measures.PersistentVolumeDeleteFailedTotal, measures.PersistentVolumeDeleteDurationSeconds,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "datera_provisioner_leader", Help: "1 if this replica leads."}, func() float64 {
			if e.IsLeader() {
				return 1
			}
			return 0
		}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		state := struct {
			Status  string `json:"status"`
			Leading bool   `json:"leading"`
			Leader  string `json:"leader,omitempty"`
		}{"ok", e.IsLeader(), e.GetLeader()}
		w.Header().Set("Content-Type", "application/json")
		if err := e.Check(tolerable); err != nil {
			state.Status = err.Error()
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(state)
	})
	return mux
}
