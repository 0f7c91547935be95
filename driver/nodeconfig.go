package driver

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
