package dateratest

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
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
		if err := s.putFaults(name, r.Body); err != nil {
			simAnswer(w, http.StatusBadRequest, entity{"message": err.Error()})
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

// putFaults sets one fault, or replaces all. Nothing changes if one of them is wrong.
func (s *Server) putFaults(name string, body io.Reader) error {
	decoder := json.NewDecoder(io.LimitReader(body, maxBody))
	decoder.DisallowUnknownFields()
	if name != "" {
		f := Fault{}
		if err := decoder.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		f.Name = name
		return s.SetFault(f)
	}
	var all []Fault
	if err := decoder.Decode(&all); err != nil {
		return err
	}
	for _, f := range all {
		if _, err := f.understand(s.now()); err != nil {
			return err
		}
	}
	s.ClearFaults()
	for _, f := range all {
		if err := s.SetFault(f); err != nil {
			return err
		}
	}
	return nil
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
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(encode(body), '\n'))
}
