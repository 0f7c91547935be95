package dateratest

import (
	"fmt"
	"strconv"
	"strings"
)

// version is an API version, 21 for v2.1.
type version int

const (
	v21 version = 21
	v22 version = 22
	v23 version = 23
)

var versions = [...]version{v21, v22, v23}

func (v version) String() string { return fmt.Sprintf("v%d.%d", v/10, v%10) }

// splitVersion parts "/v2.2/app_instances" into the version and "/app_instances". The version is 0 when the
// first element looks like a version that the cluster does not speak, or like none at all.
func splitVersion(path string) (v version, first, rest string) {
	first, rest, _ = strings.Cut(strings.TrimPrefix(path, "/"), "/")
	for _, known := range versions {
		if first == known.String() {
			v = known
		}
	}
	return v, first, "/" + rest
}

// atLeast compares dotted product versions: atLeast("3.10.0.0", 3, 3) is true.
func atLeast(software string, major, minor int) bool {
	parts := strings.SplitN(software, ".", 3)
	have := [2]int{}
	for i := 0; i < len(parts) && i < 2; i++ {
		have[i], _ = strconv.Atoi(parts[i])
	}
	return have[0] > major || have[0] == major && have[1] >= minor
}
