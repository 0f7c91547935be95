package dateratest

import (
	"crypto/subtle"
	"time"
)

// key is a session of the REST API. Its life slides: every use begins it anew.
type key struct {
	user    string
	expires time.Time
}

func login(c *call) (any, error) {
	name, _ := c.body["name"].(string)
	password, _ := c.body["password"].(string)
	u := c.cluster.Users[name]
	if u == nil || !u.Enabled || subtle.ConstantTimeCompare([]byte(u.Password), []byte(password)) != 1 {
		return nil, authFailed("user name or password is wrong")
	}
	value := randomHex(16)
	c.keys[value] = &key{name, c.at.Add(c.options.SessionLifetime)}
	return bare{"key": value}, nil
}

func logout(c *call) (any, error) {
	delete(c.keys, c.key)
	return bare{}, nil
}

func (c *call) authenticate() error {
	k := c.keys[c.key]
	if k == nil || !c.at.Before(k.expires) {
		delete(c.keys, c.key)
		return authFailed("The key provided with the request does not correspond to a valid session.")
	}
	k.expires = c.at.Add(c.options.SessionLifetime)
	c.user = k.user
	return nil
}

func readUserInfo(c *call) (any, error) {
	return c.viewUser(c.cluster.Users[c.user]), nil
}
