package dateratest

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// serveSim answers the simulator's own API, which no real cluster has:
//
//	GET    /sim/faults         all faults
//	PUT    /sim/faults         replace all by a JSON array
//	PUT    /sim/faults/NAME    set one: {"value":…,"method":…,"path":…,"count":…,"for":…}
//	DELETE /sim/faults[/NAME]  remove all, or those of one name
//	GET    /sim/requests       the calls that were made; DELETE forgets them
//
// It has no authentication and so answers the machine's own users only.
func (s *Server) serveSim(w http.ResponseWriter, r *http.Request) {
	if !fromLoopback(r.RemoteAddr) {
		simAnswer(w, http.StatusForbidden, entity{"message": "/sim is for clients on the loopback interface"})
		return
	}
	what, name, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/sim"), "/"), "/")
	switch {
	case what == "faults" && r.Method == http.MethodGet:
	case what == "faults" && r.Method == http.MethodPut:
		refusal, err := s.putFaults(name, r.Body)
		if err != nil {
			simAnswer(w, http.StatusBadRequest, entity{"message": err.Error()})
			return
		}
		if refusal > 0 { // it begins when the answer is out: it would cut it off
			w.Header().Set("Connection", "close")
			simAnswer(w, http.StatusOK, s.Faults())
			_ = http.NewResponseController(w).Flush()
			s.refuseConnections(refusal)
			return
		}
	case what == "faults" && r.Method == http.MethodDelete && name != "":
		s.ClearFaults(name)
	case what == "faults" && r.Method == http.MethodDelete:
		s.ClearFaults()
	case what == "requests" && r.Method == http.MethodGet:
		simAnswer(w, http.StatusOK, s.Requests())
		return
	case what == "requests" && r.Method == http.MethodDelete:
		s.ResetRequests()
		simAnswer(w, http.StatusOK, s.Requests())
		return
	default:
		simAnswer(w, http.StatusNotFound, entity{"message": "only GET, PUT and DELETE of /sim/faults and GET and DELETE of /sim/requests exist"})
		return
	}
	simAnswer(w, http.StatusOK, s.Faults())
}

// putFaults sets one fault, or replaces all, and returns for how long connections are to be refused at once. Nothing
// changes if one of them is wrong.
func (s *Server) putFaults(name string, body io.Reader) (refusal time.Duration, err error) {
	decoder := json.NewDecoder(io.LimitReader(body, maxBody))
	decoder.DisallowUnknownFields()
	all := []Fault{{}}
	if name != "" {
		if err := decoder.Decode(&all[0]); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		all[0].Name = name
	} else if err := decoder.Decode(&all); err != nil {
		return 0, err
	}
	understood := make([]*activeFault, len(all))
	for i, f := range all {
		if understood[i], err = f.understand(s.now()); err != nil {
			return 0, err
		}
	}
	if name == "" {
		s.ClearFaults()
	}
	for _, a := range understood {
		if a.atOnce() {
			refusal = max(refusal, a.refuse)
		} else {
			s.addFault(a)
		}
	}
	return refusal, nil
}

func fromLoopback(remote string) bool {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return false
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

func simAnswer(w http.ResponseWriter, status int, body any) {
	text := append(encode(body), '\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write(text)
}
