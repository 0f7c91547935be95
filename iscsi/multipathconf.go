package iscsi

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Multipath is what multipathd does with the disks of one vendor and product.
type Multipath struct {
	Runs      bool     // multipathd does
	Configs   []string // files that were read
	Blacklist bool     // it leaves such disks alone
	Section   bool     // its configuration has a device section for them
	Queues    bool     // I/O waits for ever when all paths are gone
	Claimed   []string // such disks that udev keeps for multipath although there is no map of them: nobody can use them
}

// Multipath reads multipathd's configuration and what it did to the disks here. It starts no program.
func (i *Initiator) Multipath(vendor, product string) (Multipath, error) {
	found := Multipath{Runs: i.multipathRuns()}
	var all multipathBlock
	parts, _ := filepath.Glob(filepath.Join(i.opt.EtcRoot, "multipath", "conf.d", "*.conf"))
	for _, path := range append([]string{filepath.Join(i.opt.EtcRoot, "multipath.conf")}, parts...) {
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return found, err
		}
		found.Configs = append(found.Configs, path)
		read := parseMultipathConf(string(content))
		all.blocks = append(all.blocks, read.blocks...)
	}
	found.Blacklist = all.blacklists(vendor, product)
	found.Section, found.Queues = all.deviceSection(vendor, product)
	var err error
	found.Claimed, err = i.claimedWithoutMap(vendor)
	return found, err
}

func (i *Initiator) claimedWithoutMap(vendor string) ([]string, error) {
	sessions, err := i.sessionsWith(func(string) bool { return true })
	var claimed []string
	for _, s := range sessions {
		for _, d := range s.disks() {
			if d.name != "" && attribute(d.dir, "vendor") == vendor && i.mapOf(d.name) == "" && i.claimedByMultipath(d.name) {
				claimed = append(claimed, i.node(d.name))
			}
		}
	}
	return claimed, err
}

// multipathBlock is a section of multipath.conf(5): keywords with values, and sections in it.
type multipathBlock struct {
	name   string
	values [][2]string
	blocks []multipathBlock
}

// parseMultipathConf takes what it understands, as multipathd does, which only warns about the rest.
func parseMultipathConf(text string) multipathBlock {
	open := []multipathBlock{{}}
	shut := func() {
		last := len(open) - 1
		open[last-1].blocks = append(open[last-1].blocks, open[last])
		open = open[:last]
	}
	for line := range strings.Lines(text) {
		words := multipathWords(line)
		switch {
		case len(words) == 0:
		case words[0] == "}":
			if len(open) > 1 {
				shut()
			}
		case len(words) > 1 && words[1] == "{":
			open = append(open, multipathBlock{name: words[0]})
		case len(words) > 1:
			last := &open[len(open)-1]
			last.values = append(last.values, [2]string{words[0], strings.Join(words[1:], " ")})
		}
	}
	for len(open) > 1 {
		shut()
	}
	return open[0]
}

// multipathWords splits a line at blanks outside of quotes. A brace is a word; # and ! begin a comment where a word would.
func multipathWords(line string) []string {
	var words []string
	for {
		line = strings.TrimLeftFunc(line, unicode.IsSpace)
		if line == "" || line[0] == '#' || line[0] == '!' {
			return words
		}
		end, skip := strings.IndexFunc(line, func(r rune) bool { return unicode.IsSpace(r) || r == '{' || r == '}' }), 0
		switch {
		case end == 0: // a brace
			end = 1
		case line[0] == '"':
			line, skip = line[1:], 1
			end = strings.IndexByte(line, '"')
		}
		if end < 0 {
			end, skip = len(line), 0
		}
		words = append(words, line[:end])
		line = line[end+skip:]
	}
}

// blacklists tells whether a disk is left alone: an entry of blacklist fits it, and none of the same kind in
// blacklist_exceptions does. Of a disk that is not there yet, name and WWID are like these.
func (b multipathBlock) blacklists(vendor, product string) bool {
	disk := map[string]string{"devnode": "sda", "wwid": "36001405b0c0a1e0d00000000", "protocol": "scsi:iscsi"}
	fits := func(section, kind string) bool {
		for _, block := range b.named(section) {
			if kind == "device" {
				if slices.ContainsFunc(block.named(kind), func(d multipathBlock) bool { return d.isFor(vendor, product) }) {
					return true
				}
				continue
			}
			for _, pattern := range block.all(kind) {
				if multipathMatch(pattern, disk[kind]) {
					return true
				}
			}
		}
		return false
	}
	return slices.ContainsFunc([]string{"devnode", "wwid", "protocol", "device"}, func(kind string) bool {
		return fits("blacklist", kind) && !fits("blacklist_exceptions", kind)
	})
}

// deviceSection tells whether there are settings of its own for a product, and whether all settings together queue for ever.
func (b multipathBlock) deviceSection(vendor, product string) (section, queues bool) {
	retry := ""
	settle := func(block multipathBlock) {
		for _, value := range block.values {
			if value[0] == "no_path_retry" {
				retry = value[1]
			}
			if value[0] == "features" && strings.Contains(value[1], "queue_if_no_path") && retry == "" {
				retry = "queue"
			}
		}
	}
	for _, defaults := range b.named("defaults") {
		settle(defaults)
	}
	for _, devices := range b.named("devices") {
		for _, device := range devices.named("device") {
			if len(device.all("vendor")) > 0 && device.isFor(vendor, product) {
				section = true
				settle(device)
			}
		}
	}
	for _, overrides := range b.named("overrides") {
		settle(overrides)
	}
	return section, retry == "queue"
}

func (b multipathBlock) isFor(vendor, product string) bool {
	for keyword, text := range map[string]string{"vendor": vendor, "product": product} {
		for _, pattern := range b.all(keyword) {
			if !multipathMatch(pattern, text) {
				return false
			}
		}
	}
	return len(b.values) > 0
}

func (b multipathBlock) named(name string) []multipathBlock {
	return slices.DeleteFunc(slices.Clone(b.blocks), func(block multipathBlock) bool { return block.name != name })
}

func (b multipathBlock) all(keyword string) []string {
	var values []string
	for _, value := range b.values {
		if value[0] == keyword {
			values = append(values, value[1])
		}
	}
	return values
}

// multipathMatch matches as multipathd does: anywhere in the text; ! turns it round; a lone * is everything.
func multipathMatch(pattern, text string) bool {
	pattern, inverted := strings.CutPrefix(pattern, "!")
	if pattern == "*" {
		pattern = ".*"
	}
	expression, err := regexp.CompilePOSIX(pattern)
	return err == nil && expression.MatchString(text) != inverted
}
