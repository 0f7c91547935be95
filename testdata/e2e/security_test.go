package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/lab"
)

// Secrets that must be found nowhere but in the configuration.
const (
	canaryPassword = "canary-api-1"
	canaryCHAP     = "canary-chap-2"
	canaryMutual   = "canary-mutual-3"
)

// rest makes a request to the array from the host and returns a field of the answer.
func rest(t *testing.T, method, path, key string, body map[string]any, field string) string {
	t.Helper()
	text, err := json.Marshal(body)
	require.NoError(t, err)
	request, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, "http://"+control.Forwarded(lab.ArrayPort)+"/v2.2"+path, strings.NewReader(string(text)))
	require.NoError(t, err)
	request.Header.Set("Auth-Token", key)
	request.Header.Set("tenant", "/root")
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	said, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Less(t, response.StatusCode, 300, "%s %s: %s", method, path, said)
	var answer map[string]any
	require.NoError(t, json.Unmarshal(said, &answer))
	value, _ := answer[field].(string)
	return value
}

// A life in each way to attach, with CHAP, and with the failures that show most: a wrong secret, a refused mount. All logs
// say as much as they can. Then the machines are searched.
func TestNoSecretIsLeftOnTheMachines(t *testing.T) {
	key := rest(t, "PUT", "/login", "", map[string]any{"name": lab.User, "password": lab.Password}, "key")
	rest(t, "POST", "/users", key, map[string]any{"user_id": "canary", "full_name": "canary", "email": "canary@example.com",
		"password": canaryPassword, "roles": []any{map[string]string{"path": "/roles/admin"}}}, "")
	t.Cleanup(func() { rest(t, "DELETE", "/users/canary", key, map[string]any{}, "") }) // after the volumes are gone
	chap := driver.CHAPConfig{Username: "chap-user", Password: canaryCHAP, MutualUsername: "array-user", MutualPassword: canaryMutual}
	canary := func(c *driver.Config) { c.Username, c.Password, c.CHAP = "canary", canaryPassword, chap }

	configure(t, canary, control, nodeA)
	volume := newVolume(t)
	stage(t, nodeA, volume)
	require.Empty(t, shell(t, nodeA, "find /etc/iscsi/nodes -type f -perm /077"), "others may read the node records, which hold the CHAP secrets")
	unstage(t, nodeA, volume)
	require.NoError(t, nodeA.Configure(t.Context(), func(c *driver.Config) { canary(c); c.CHAP.Password = canaryCHAP[1:] }))
	said := refused(t, nodeA, "waitforattach", call(t, control, "attach", volume.Request(), "node-a").Reply.Device, volume.Request())
	call(t, control, "detach", volume.Name, "node-a")

	configure(t, func(c *driver.Config) { canary(c); c.Attach = driver.AttachNone }, nodeB)
	base64d := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	secret := newVolume(t, map[string]string{"kubernetes.io/pvOrVolumeName": "secret", "volumeID": "e2e-secret",
		"kubernetes.io/secret/username": base64d("canary"), "kubernetes.io/secret/password": base64d(canaryPassword)})
	secret.Name = "secret"
	said += refused(t, nodeB, "mount", secret.PodPath(podUID), secret.With(map[string]string{"mkfsOptions": "--no-such"}).Request())
	call(t, nodeB, "mount", secret.PodPath(podUID), secret.Request())
	call(t, nodeB, "unmount", secret.PodPath(podUID))
	clean(t, nodeB)

	needles := []string{canaryPassword, canaryCHAP[1:], canaryMutual}
	for _, needle := range needles[:3] {
		needles = append(needles, strings.TrimRight(base64d(needle), "="))
	}
	for _, needle := range needles {
		require.NotContains(t, said, needle)
	}
	for _, machine := range []*lab.Machine{control, nodeA, nodeB} {
		pattern := "-e " + strings.Join(needles, " -e ")
		found := shell(t, machine, "grep -rlaF "+pattern+" /etc /home /opt /root /run /tmp /usr/libexec /var 2>/dev/null || :; dmesg | grep -F "+pattern+" || :")
		require.Equal(t, lab.PluginDir+"/.datera-config", found, "secrets on %s", machine.Name)
		require.Equal(t, "600", shell(t, machine, "stat -c %a "+found))
		require.Empty(t, shell(t, machine, "find /run/datera-iscsi /var/lib/datera-iscsi /var/log/datera-iscsi -perm /007 2>/dev/null || :"), "others may read files of the driver")
		require.Equal(t, ".datera-config iscsi", shell(t, machine, "ls -A "+lab.PluginDir+" | xargs"), "kubelet probes again for each file that comes there")
	}
}

// What kubelet or somebody else put in place of the driver's folders and of the directories that it is given.
func TestSymbolicLinks(t *testing.T) {
	each := "for d in /run /var/lib /var/log; do %s; done"
	shell(t, nodeA, fmt.Sprintf(each, "mkdir -p $d/datera-iscsi /mnt/moved$d; mv $d/datera-iscsi /mnt/moved$d; ln -s /mnt/moved$d/datera-iscsi $d"))
	t.Cleanup(func() {
		_, err := nodeA.Shell(context.Background(), fmt.Sprintf(each, "rm $d/datera-iscsi; mv /mnt/moved$d/datera-iscsi $d"))
		require.NoError(t, err)
	})
	volume := newVolume(t)
	pod, linked := volume.PodPath(podUID), volume.PodPath("linked")
	stage(t, nodeA, volume)
	call(t, nodeA, "mount", pod, volume.Request())
	sum := write(t, nodeA, pod)

	// A pod's directory that is a link leads nowhere: not to /etc, and not to another pod's mount.
	shell(t, nodeA, "mkdir -p /mnt/victim $(dirname "+linked+"); ln -s /mnt/victim "+linked)
	require.Contains(t, refused(t, nodeA, "mount", linked, volume.Request()), "is not a directory")
	require.Equal(t, "0", shell(t, nodeA, "grep -c victim /proc/self/mountinfo || :"))
	shell(t, nodeA, "ln -sfn "+pod+" "+linked)
	call(t, nodeA, "unmount", linked)
	require.Equal(t, sum, read(t, nodeA, pod), "the mount behind a link was removed")
	shell(t, nodeA, "rm "+linked)

	call(t, nodeA, "unmount", pod)
	call(t, nodeA, "unmountdevice", volume.GlobalPath())
	// The same for the global path.
	shell(t, nodeA, "rmdir "+volume.GlobalPath()+"; ln -s /mnt/victim "+volume.GlobalPath())
	device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
	disk := call(t, nodeA, "waitforattach", device, volume.Request()).Reply.Device
	require.Contains(t, refused(t, nodeA, "mountdevice", volume.GlobalPath(), disk, volume.Request()), "is not a directory")
	require.Equal(t, "0", shell(t, nodeA, "grep -c victim /proc/self/mountinfo || :"))
	shell(t, nodeA, "rm "+volume.GlobalPath())
	unstage(t, nodeA, volume)
}
