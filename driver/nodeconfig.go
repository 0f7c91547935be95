package driver

import (
	"fmt"
	"os"
	"strings"
)

// NodeName is the name of this node in Kubernetes where nobody says it: node of the configuration, else the host name.
func (c Config) NodeName() (string, error) {
	if c.Node != "" {
		return c.Node, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find the name of this node: %w", err)
	}
	return strings.ToLower(host), nil
}

// Connection is the configured array and the user to be there.
func (c Config) Connection() (scheme string, credentials Credentials, err error) {
	configured, err := c.connectionFor(Volume{})
	return configured.Scheme, configured.Credentials, err
}

// ForNode is the configuration as a node gets it: with the node's name in Kubernetes, and another attach mode unless
// that is empty.
func (c Config) ForNode(node string, mode AttachMode) (Config, error) {
	c.Node = node
	if mode != "" {
		c.Attach = mode
	}
	return c, c.check()
}
