package iscsi

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPanicInABoundedCallIsAnError(t *testing.T) {
	err := bounded(t.Context(), func() error { panic("canary") })
	require.ErrorContains(t, err, "fault in package iscsi: canary")
}
