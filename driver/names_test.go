package driver

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDerivedNames(t *testing.T) {
	long := strings.Repeat("pv", 126)
	require.Equal(t, "k8s_kubernetes_pv-datera-0", entityNameFor("kubernetes", "pv-datera-0"))
	require.Equal(t, "k8s_kubernetes_node-1.example", InitiatorName("kubernetes", "node-1.example"))
	require.True(t, isEntityName(entityNameFor("kubernetes", long)), "a long name does not fit the array's rule")
	require.LessOrEqual(t, len(entityNameFor("kubernetes", long)), entityNameLimit)
	require.LessOrEqual(t, len(InitiatorName("kubernetes", long)), initiatorNameLimit)
}

func TestDerivedNamesKeepVolumesApart(t *testing.T) {
	long := strings.Repeat("a", 200)
	pairs := map[string][2]string{
		"long names that differ at the end": {entityNameFor("c", long+"1"), entityNameFor("c", long+"2")},
		"clusters":                          {entityNameFor("c1", "pv"), entityNameFor("c2", "pv")},
	}
	for name, pair := range pairs {
		t.Run(name, func(t *testing.T) { require.NotEqual(t, pair[0], pair[1]) })
	}
}

func TestNodeOf(t *testing.T) {
	require.Equal(t, "node-1", nodeOf("kubernetes", "k8s_kubernetes_node-1"))
	require.Equal(t, "CSI-4711", nodeOf("kubernetes", "CSI-4711"), "a foreign initiator keeps its name")
}

func TestFileNames(t *testing.T) {
	require.Equal(t, "pv-1", fileNameFor("pv-1"))
	a, b := fileNameFor(strings.Repeat("a", 252)+"x"), fileNameFor(strings.Repeat("a", 252)+"y")
	require.NotEqual(t, a, b)
	require.Less(t, len(a)+len("volume-.json.1234567890"), 256)
}

func TestCheckVolumeName(t *testing.T) {
	for _, name := range []string{"pv-1", "a", "pvc-2f6e.x", strings.Repeat("a", 253)} {
		require.NoError(t, checkVolumeName(name))
	}
	for _, name := range []string{"", ".", "..", "a/b", "A", "-a", "a-", "a..b", "a b", "a\n", strings.Repeat("a", 254)} {
		require.Error(t, checkVolumeName(name), "%q was accepted", name)
	}
}
