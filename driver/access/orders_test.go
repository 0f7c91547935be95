package access_test

import "testing"

func TestProbe(t *testing.T) {
	for _, s := range []scenario{{who: "0A,0B"}, {who: "0A,1B"}, {who: "0A,0B", none: true}, {who: "0A,D"}} {
		orders, states := explore(t, s)
		t.Log(s.who, s.none, orders, states)
	}
}
