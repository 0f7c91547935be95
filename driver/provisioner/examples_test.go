package provisioner

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	v1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// Every example of a StorageClass is one that the provisioner takes.
func TestExamples(t *testing.T) {
	examples, err := filepath.Glob("../../deploy/examples/storageclass-*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, examples)
	for _, example := range examples {
		t.Run(filepath.Base(example), func(t *testing.T) {
			text, err := os.ReadFile(example)
			require.NoError(t, err)
			documents := strings.Split(string(text), "\n---\n")
			class, secret := &storageClass{}, &v1.Secret{}
			require.NoError(t, yaml.UnmarshalStrict([]byte(documents[0]), class))
			require.Equal(t, Name, class.Provisioner)
			w := newWorld(t, class)
			if len(documents) > 1 {
				require.NoError(t, yaml.UnmarshalStrict([]byte(documents[1]), secret))
				secret.Data = map[string][]byte{} // as the API server does with stringData
				for key, value := range secret.StringData {
					secret.Data[key] = []byte(value)
				}
				w.add(secret)
			}
			_, err = w.provisioner().design(t.Context(), w.driver(), w.options(*aClaim(theClaim, "10Gi", ofClass(class.Name))))
			require.NoError(t, err)
		})
	}
}
