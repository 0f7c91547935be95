package upgrade

import (
	"math/rand/v2"
	"sync"
)

// An order lets one request of all hosts through at a time, and draws whose: only when each host whose caller is at work has one
// waiting. So requests of two calls meet in every order, on a machine of any speed.
type order struct {
	mu      sync.Mutex
	random  *rand.Rand
	working map[*host]bool
	waiting map[*host][]chan struct{}
	hosts   []*host
}

func newOrder(random *rand.Rand, hosts []*host) *order {
	return &order{random: random, hosts: hosts, working: map[*host]bool{}, waiting: map[*host][]chan struct{}{}}
}

// begin says that calls of a host will come, each caller one after the other, until end.
func (o *order) begin() {
	for _, h := range o.hosts {
		o.working[h] = true
	}
}

func (o *order) end(h *host) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.working, h)
	o.pass()
}

// wait holds a host's request until it is drawn. Where no caller is at work nothing is held.
func (o *order) wait(h *host) {
	o.mu.Lock()
	if len(o.working) == 0 {
		o.mu.Unlock()
		return
	}
	turn := make(chan struct{})
	o.waiting[h] = append(o.waiting[h], turn)
	o.pass()
	o.mu.Unlock()
	<-turn
}

// pass draws the next request if there is one of each. Who was drawn waits again, or ends, before the next one is.
func (o *order) pass() {
	var ready []*host
	for _, h := range o.hosts {
		switch {
		case len(o.waiting[h]) > 0:
			ready = append(ready, h)
		case o.working[h]:
			return
		}
	}
	if len(ready) == 0 {
		return
	}
	drawn := ready[o.random.IntN(len(ready))]
	close(o.waiting[drawn][0])
	o.waiting[drawn] = o.waiting[drawn][1:]
}
