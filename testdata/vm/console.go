package vm

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// console remembers the end of what the machine and QEMU have printed, for error messages.
type console struct {
	log io.Writer

	mu   sync.Mutex
	last []byte
}

const consoleBytes = 8 << 10

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = append(c.last, p...)
	if excess := len(c.last) - consoleBytes; excess > 0 {
		c.last = append(c.last[:0], c.last[excess:]...)
	}
	if c.log != nil {
		_, _ = c.log.Write(p)
	}
	return len(p), nil
}

func (c *console) tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if text := bytes.TrimSpace(bytes.ReplaceAll(c.last, []byte("\r"), nil)); len(text) > 0 {
		return "the console's end:\n" + strings.ToValidUTF8(string(text), "?")
	}
	return "the console is empty"
}
