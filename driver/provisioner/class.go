package provisioner

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"

	"datera-flexvolume/driver"
)

// The driver's options that the provisioner itself reads or writes. All others pass
// through to it; it checks their values.
const (
	optVolumeID     = "volumeID"
	optSize         = "size"
	optSource       = "volumeSource"
	optServer       = "backstoreServer"
	optTemplate     = "template"
	optMountOptions = "mountOptions"
	optRetainPolicy = "retainPolicy"
	optProvisioned  = "provisioned"
)

// The parameters of a StorageClass that are no options of the driver.
const (
	paramFSType          = "fsType"
	paramSecretName      = "secretName"
	paramSecretNamespace = "secretNamespace"
)

// parameters are what a StorageClass may say.
func parameters() []string {
	return []string{
		optTemplate, "replica", "maxIops", "maxBW", "ipPool", "placementMode", "placementPolicy", "tenant", optServer, optSource,
		optMountOptions, "mkfsOptions", optRetainPolicy, paramFSType, paramSecretName, paramSecretNamespace,
	}
}

// elsewhere is what people might look for in a StorageClass, and where it is said.
func elsewhere() map[string]string {
	return map[string]string{
		optSize:                     "each claim says its size, in spec.resources.requests.storage",
		optVolumeID:                 "the volume's name follows from the PersistentVolume's",
		optProvisioned:              "the provisioner says it itself",
		"csi.storage.k8s.io/fstype": "it is for CSI drivers, here it is " + paramFSType,
	}
}

// checkClass refuses a class that cannot be honoured as a whole. The values of its
// parameters are the driver's to check.
func checkClass(class *storage.StorageClass) error {
	var errs []error
	for key := range class.Parameters {
		if slices.Contains(parameters(), key) {
			continue
		}
		if where := elsewhere()[key]; where != "" {
			errs = append(errs, fmt.Errorf("%s is no parameter: %s", key, where))
			continue
		}
		errs = append(errs, fmt.Errorf("unknown parameter %w", driver.UnknownKey(key, parameters())))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if secret := class.Parameters; (secret[paramSecretName] == "") != (secret[paramSecretNamespace] == "") {
		errs = append(errs, fmt.Errorf("%s and %s belong together: give both or none", paramSecretName, paramSecretNamespace))
	}
	// What this word says is the reclaim policy's here: nobody who wrote "retain" shall lose data.
	if retain := class.Parameters[optRetainPolicy]; retain != "" && (retain == "never") != (reclaimPolicy(class) == v1.PersistentVolumeReclaimDelete) {
		errs = append(errs, fmt.Errorf("%s is %q, but reclaimPolicy is %s, which decides: leave %s out", optRetainPolicy, retain, reclaimPolicy(class), optRetainPolicy))
	}
	if class.Parameters[optTemplate] != "" && class.Parameters[optSource] != "" {
		errs = append(errs, fmt.Errorf("%s and %s: a clone has its source's layout; give one of them", optTemplate, optSource))
	}
	if len(class.AllowedTopologies) > 0 {
		errs = append(errs, errors.New("allowedTopologies cannot be kept: a volume of the array can be reached from every node"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("StorageClass %s: %w", class.Name, oneLine(err))
	}
	return nil
}

// reclaimPolicy is Delete where the class says nothing, as Kubernetes has it.
func reclaimPolicy(class *storage.StorageClass) v1.PersistentVolumeReclaimPolicy {
	if class.ReclaimPolicy == nil {
		return v1.PersistentVolumeReclaimDelete
	}
	return *class.ReclaimPolicy
}

// optionsOf are the driver's options that a class gives to each of its volumes.
func optionsOf(class *storage.StorageClass) map[string]string {
	options := map[string]string{}
	for key, value := range class.Parameters {
		if key != paramFSType && key != paramSecretName && key != paramSecretNamespace {
			options[key] = value
		}
	}
	// A PersistentVolume's own mountOptions are not for FlexVolume: kubelet would refuse it.
	if words := append(slices.Clone(class.MountOptions), options[optMountOptions]); len(class.MountOptions) > 0 {
		options[optMountOptions] = strings.Trim(strings.Join(words, ","), ",")
	}
	return options
}

// secretOf is where the array's credentials are for the volumes of a class; nil: in the
// configuration.
func secretOf(class *storage.StorageClass) *v1.SecretReference {
	if class.Parameters[paramSecretName] == "" {
		return nil
	}
	return &v1.SecretReference{Name: class.Parameters[paramSecretName], Namespace: class.Parameters[paramSecretNamespace]}
}
