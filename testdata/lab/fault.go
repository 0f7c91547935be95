package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// Fault makes the array misbehave until Heal; `datera-sim --help` lists the names and values.
func (l *Lab) Fault(ctx context.Context, name, value string) error {
	body, err := json.Marshal(map[string]string{"value": value})
	if err != nil {
		return err
	}
	return l.simulate(ctx, "PUT", "/sim/faults/"+name, string(body))
}

// Heal ends all faults.
func (l *Lab) Heal(ctx context.Context) error { return l.simulate(ctx, "DELETE", "/sim/faults", "") }

// simulate speaks to the simulator on the array itself, for it takes such orders from nowhere else.
func (l *Lab) simulate(ctx context.Context, method, path, body string) error {
	request := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: array\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
	result, err := l.Array.Run(ctx, "bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/7717 && printf %s "$1" >&3 && cat <&3`, "-", request)
	if err != nil {
		return err
	}
	answer, _, _ := strings.Cut(string(result.Stdout), "\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 20") {
		return fmt.Errorf("%s %s: %s%s", method, path, answer, result.Stderr)
	}
	return nil
}
