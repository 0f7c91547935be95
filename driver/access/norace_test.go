//go:build !race

package access_test

const (
	everyMutation = 1
	someOrders    = 60
	allOrders     = 0
)
