package install

import (
	"fmt"
	"os"

	"sigs.k8s.io/yaml"

	"datera-flexvolume/driver"
)

const binaryMode = 0o755

// header begins the configuration of a node.
const header = "# Written by `iscsi install`, which overwrites what is changed here.\n"

// place puts configuration and executable into the driver's folder. kubelet asks the executable at the moment it
// appears what it can do, so the configuration comes first.
//
// The executable is staged before anything changes: if the process dies, its copy stays as the sign that kubelet may
// not have been told.
func (i *Installer) place(config driver.Config) *failure {
	document, authority, err := i.render(config)
	if err != nil {
		return &failure{StepConfiguration, err}
	}
	f := i.folder()
	digest, err := digestOf(i.Executable)
	if err != nil {
		return &failure{StepDriver, fmt.Errorf("read the executable to install: %w", err)}
	}
	if err := f.MakeDir(f.path); err != nil {
		return &failure{StepDriver, err}
	}
	leftovers := f.leftovers("")
	replace := !i.has(digest) || i.answersChange(config) || len(f.leftovers(binaryName)) > 0
	var staged string
	if replace {
		if staged, err = i.stageExecutable(); err != nil {
			return &failure{StepDriver, err}
		}
	}
	changed, err := i.putConfiguration(document, authority)
	if err != nil {
		return &failure{StepConfiguration, err}
	}
	i.report(StepConfiguration, fmt.Sprintf("%s: attach mode %s, array %s", i.named(configName), config.Attach, config.ManagementIP), changed)
	if replace {
		if err := f.Rename(staged, f.file(binaryName)); err != nil {
			return &failure{StepDriver, err}
		}
	}
	i.report(StepDriver, fmt.Sprintf("%s: version %s, sha256 %.12s", i.named(binaryName), i.Version, digest), replace)
	if err := f.removeAll(append(leftovers, f.file(leavingName))...); err != nil {
		return &failure{StepDriver, err}
	}
	return nil
}

// has tells whether the installed executable is the one with this digest.
func (i *Installer) has(digest string) bool {
	f := i.folder()
	installed, err := digestOf(f.file(binaryName))
	return err == nil && installed == digest && f.hasMode(binaryName, binaryMode)
}

// answersChange tells whether the driver will answer init otherwise than before.
func (i *Installer) answersChange(config driver.Config) bool {
	before, _ := i.installed() // init, too, makes do with what can be read
	return (before.Attach == driver.AttachNone) != (config.Attach == driver.AttachNone)
}

// installed is the configuration that the driver on this host has.
func (i *Installer) installed() (driver.Config, error) {
	return driver.LoadConfig([]string{i.folder().file(configName)}, func(string) string { return "" })
}

func (i *Installer) stageExecutable() (string, error) {
	file, err := os.Open(i.Executable)
	if err != nil {
		return "", err
	}
	defer file.Close()
	f := i.folder()
	return f.Stage(f.file(binaryName), file, binaryMode)
}

// render is what the configuration and the file with the array's authority are to hold. The control plane's container
// sees the driver's folder and no other, so the authority is put there, too.
func (i *Installer) render(config driver.Config) (document, authority []byte, err error) {
	if config.CAFile != "" {
		if authority, err = os.ReadFile(config.CAFile); err != nil {
			return nil, nil, fmt.Errorf("ca_file of configuration %s: %w", config.Path, err)
		}
		config.CAFile = i.named(authorityName)
	}
	if !i.Credentials {
		config.Username, config.Password = "", ""
	}
	document, err = yaml.Marshal(config)
	return append([]byte(header), document...), authority, err
}

func (i *Installer) putConfiguration(document, authority []byte) (changed bool, err error) {
	f := i.folder()
	if authority != nil {
		if changed, err = f.put(authorityName, authority); err != nil {
			return changed, err
		}
	}
	changedToo, err := f.put(configName, document)
	if err == nil && authority == nil {
		err = f.removeAll(f.file(authorityName))
	}
	return changed || changedToo, err
}
