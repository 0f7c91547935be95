//go:build race

package access_test

// The race detector makes five times as slow what is played one request at a time: `make unit` plays more without it.
const (
	everyMutation = 10
	someOrders    = 12
	allOrders     = 200 // of those that are walked to the end elsewhere
)
