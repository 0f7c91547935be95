//go:build race

package access_test

// everyMutation thins out what the race detector makes five times as slow; `make unit` plays all of them without it.
const everyMutation = 10
