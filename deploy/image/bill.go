package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

// billOfMaterials lists the executables, the modules that each was linked from, and Go's standard library, as the
// executables themselves say.
func billOfMaterials(c contents, programs []executable) ([]byte, error) {
	libraries := map[string]cyclonedx.Component{}
	bill := cyclonedx.NewBOM()
	bill.Metadata = &cyclonedx.Metadata{
		Timestamp: c.created.Format(time.RFC3339),
		Component: &cyclonedx.Component{
			BOMRef: title, Type: cyclonedx.ComponentTypeContainer, Name: title, Version: c.version,
			Licenses: &cyclonedx.Licenses{{License: &cyclonedx.License{ID: licence}}},
		},
	}
	var components []cyclonedx.Component
	image := cyclonedx.Dependency{Ref: title, Dependencies: &[]string{}}
	var dependencies []cyclonedx.Dependency
	for _, program := range programs {
		sum := sha256.Sum256(program.content)
		reference := "/" + binDir + "/" + program.name
		components = append(components, cyclonedx.Component{
			BOMRef: reference, Type: cyclonedx.ComponentTypeApplication, Name: program.name, Version: c.version,
			Hashes: &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
		})
		*image.Dependencies = append(*image.Dependencies, reference)
		linked := []string{}
		for _, module := range append(program.info.Deps, &debug.Module{Path: "stdlib", Version: strings.TrimPrefix(program.info.GoVersion, "go")}) {
			library := libraryOf(module)
			libraries[library.BOMRef] = library
			linked = append(linked, library.BOMRef)
		}
		slices.Sort(linked)
		dependencies = append(dependencies, cyclonedx.Dependency{Ref: reference, Dependencies: &linked})
	}
	for _, reference := range slices.Sorted(maps.Keys(libraries)) {
		components = append(components, libraries[reference])
	}
	dependencies = append([]cyclonedx.Dependency{image}, dependencies...)
	bill.Components, bill.Dependencies = &components, &dependencies

	var document bytes.Buffer
	encoder := cyclonedx.NewBOMEncoder(&document, cyclonedx.BOMFileFormatJSON)
	encoder.SetPretty(true)
	err := encoder.EncodeVersion(bill, cyclonedx.SpecVersion1_6) // scanners lag behind the newest
	return document.Bytes(), err
}

func libraryOf(module *debug.Module) cyclonedx.Component {
	if module.Replace != nil {
		module = module.Replace
	}
	url := packageURL(module.Path, module.Version)
	return cyclonedx.Component{BOMRef: url, Type: cyclonedx.ComponentTypeLibrary, Name: module.Path, Version: module.Version, PackageURL: url}
}

// packageURL names a Go module as the purl specification has it: lower case, and no plain "+".
func packageURL(path, version string) string {
	return "pkg:golang/" + strings.ToLower(path) + "@" + strings.ReplaceAll(version, "+", "%2B")
}
