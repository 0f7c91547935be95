package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"

	"datera-flexvolume/testdata/lab"
)

// countVolumes asks the array for all its app instances, which the driver never does.
func (s *story) countVolumes() (int, error) {
	var login struct {
		Key string `json:"key"`
	}
	if err := s.request(http.MethodPut, "login", map[string]string{"name": lab.User, "password": lab.Password}, "", &login); err != nil {
		return 0, err
	}
	var all struct {
		Data []json.RawMessage `json:"data"`
	}
	err := s.request(http.MethodGet, "app_instances", nil, login.Key, &all)
	return len(all.Data), err
}

func (s *story) request(method, path string, body any, key string, answer any) error {
	document, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(s.ctx, method, "http://"+s.cluster.Lab.Array.Forwarded(lab.ArrayPort)+"/v2.2/"+path, bytes.NewReader(document))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if key != "" {
		request.Header.Set("Auth-Token", key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, response.Status)
	}
	return json.NewDecoder(response.Body).Decode(answer)
}
