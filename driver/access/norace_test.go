//go:build !race

package access_test

const everyMutation = 1
