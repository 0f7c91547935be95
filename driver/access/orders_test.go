package access_test

import (
	"testing"
	"time"
)

func TestProbe(t *testing.T) {
	for _, s := range []scenario{{who: "0A,0B"}, {who: "0A,1B"}, {who: "0A,0Br"}, {who: "0A,D"}, {who: "0A,0B", budget: budget{kills: 1}}} {
		b := time.Now()
		orders, states := explore(t, s)
		t.Log(s.who, s.none, orders, states, time.Since(b))
	}
}
