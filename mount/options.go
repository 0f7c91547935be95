package mount

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// checkWord refuses what would not stay one word of one argument.
func checkWord(kind, word string) error {
	switch {
	case word == "":
		return fmt.Errorf("empty %s", kind)
	case strings.ContainsFunc(word, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		return fmt.Errorf("%s %q has a space or control character in it", kind, word)
	}
	return nil
}

// forbiddenMountOptions change what is mounted, or where, or hide that it failed, instead of how.
var forbiddenMountOptions = []string{
	"bind", "rbind", "move", "remount", "loop", "offset", "sizelimit", "nofail", "helper", "uhelper",
	"logdev", "rtdev", "journal_path", "journal_dev", "sb", "make-shared", "make-private", "make-slave", "make-unbindable",
}

// mountWords turns the wishes for a mount into the options for mount -o.
func mountWords(filesystem string, opts MountOptions) (words []string, readOnly bool, err error) {
	switch filesystem {
	case "xfs":
		// A clone or snapshot has its source's UUID, and xfs refuses to mount the same one twice.
		words = append(words, "nouuid")
	case "ext4":
	default:
		return nil, false, fmt.Errorf("file system %q is not supported: xfs and ext4 are", filesystem)
	}
	readOnly = opts.ReadOnly || slices.Contains(opts.Options, "ro")
	if readOnly {
		words = append(words, "ro")
	}
	for _, option := range opts.Options {
		if err := checkMountOption(option, readOnly); err != nil {
			return nil, false, err
		}
		if !slices.Contains(words, option) {
			words = append(words, option)
		}
	}
	return words, readOnly, nil
}

func checkMountOption(option string, readOnly bool) error {
	if err := checkWord("mount option", option); err != nil {
		return err
	}
	name, _, _ := strings.Cut(option, "=")
	switch {
	case strings.HasPrefix(option, "-"):
		return fmt.Errorf("mount option %q: give the options of mount -o, without a dash", option)
	case strings.Contains(unquoted(option), ","):
		return fmt.Errorf("mount option %q: give one option at a time", option)
	case slices.Contains(forbiddenMountOptions, name), strings.HasPrefix(strings.ToLower(name), "x-"):
		return fmt.Errorf("mount option %q is not allowed here", option)
	case name == "rw" && readOnly:
		return errors.New(`mount option "rw" contradicts a read-only mount`)
	}
	return nil
}

// unquoted is a text without what stands in double quotes, as in context="system_u:object_r:x:s0:c1,c2".
func unquoted(text string) string {
	parts := strings.Split(text, `"`)
	var outside strings.Builder
	for i := 0; i < len(parts); i += 2 {
		outside.WriteString(parts[i])
	}
	return outside.String()
}

// mkfsSyntax is what of a mkfs program's options may be given by users: options without and with a value (getopt
// letters), and the sub-options that must not be in such a value, since they name a file or device or
// move the file system away from the beginning of the device.
type mkfsSyntax struct {
	program   string
	least     int64 // smallest device, bytes
	flags     string
	valued    string
	forbidden []string
}

func syntaxOf(filesystem string) (mkfsSyntax, error) {
	switch filesystem {
	case "xfs":
		return mkfsSyntax{
			program: "mkfs.xfs", least: 300 * mib, flags: "Kq", valued: "bdilmnsL",
			forbidden: []string{"name", "file", "logdev", "rtdev"},
		}, nil
	case "ext4":
		return mkfsSyntax{
			program: "mkfs.ext4", least: 2 * mib, flags: "qj", valued: "bCEGIJLNOTUeim",
			forbidden: []string{"device", "offset", "root_selinux", "resume", "test_fs"},
		}, nil
	}
	return mkfsSyntax{}, fmt.Errorf("file system %q is not supported: xfs and ext4 are", filesystem)
}

// mkfsCommand is the program and its arguments for a request. The options that the project adds stand first.
func mkfsCommand(req FormatRequest) (mkfsSyntax, []string, error) {
	syntax, err := syntaxOf(req.Filesystem)
	if err != nil {
		return mkfsSyntax{}, nil, err
	}
	given, err := syntax.split(req.Options)
	if err != nil {
		return mkfsSyntax{}, nil, err
	}
	// Discarding a blank device gains nothing and takes long on a large thin volume.
	args := []string{"-q"}
	if req.Filesystem == "xfs" {
		args = append(args, "-K")
	} else {
		args = append(args, "-E", joinExtended(given))
		if !given.has('m') { // nothing of the host lives on this file system, so nothing needs a reserve
			args = append(args, "-m", "0")
		}
	}
	for _, option := range given {
		switch {
		case option.letter == 'q' || option.letter == 'K' || option.letter == 'E':
		case option.value == "":
			args = append(args, "-"+string(option.letter))
		default:
			args = append(args, "-"+string(option.letter), option.value)
		}
	}
	return syntax, append(args, req.Device), nil
}

// joinExtended puts all -E into one, as mke2fs heeds only the last.
func joinExtended(given mkfsOptions) string {
	values := []string{"nodiscard"}
	for _, option := range given {
		if option.letter == 'E' {
			values = append(values, option.value)
		}
	}
	return strings.Join(values, ",")
}

type mkfsOption struct {
	letter byte
	value  string
}

type mkfsOptions []mkfsOption

func (o mkfsOptions) has(letter byte) bool {
	return slices.ContainsFunc(o, func(option mkfsOption) bool { return option.letter == letter })
}

// split reads words as getopt would, and takes only what the syntax allows.
func (s mkfsSyntax) split(words []string) (mkfsOptions, error) {
	var options mkfsOptions
	for i := 0; i < len(words); i++ {
		word := words[i]
		if err := checkWord("mkfs option", word); err != nil {
			return nil, err
		}
		if len(word) < 2 || word[0] != '-' {
			return nil, fmt.Errorf("mkfs option %q: an option with a dash is expected; the device is not given here", word)
		}
		letter, value := word[1], word[2:]
		switch {
		case strings.IndexByte(s.flags, letter) >= 0 && value == "":
		case strings.IndexByte(s.valued, letter) >= 0:
			if value == "" {
				i++
				if i == len(words) {
					return nil, fmt.Errorf("mkfs option %q needs a value", word)
				}
				value = words[i]
			}
			if err := s.checkValue(letter, value); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("mkfs option %q is not allowed for %s: allowed are -%s, and with a value -%s",
				word, s.program, strings.Join(strings.Split(s.flags, ""), " -"), strings.Join(strings.Split(s.valued, ""), " -"))
		}
		options = append(options, mkfsOption{letter, value})
	}
	return options, nil
}

func (s mkfsSyntax) checkValue(letter byte, value string) error {
	if err := checkWord("mkfs option", value); err != nil {
		return err
	}
	if strings.HasPrefix(value, "-") {
		return fmt.Errorf("mkfs option -%c: value %q begins with a dash", letter, value)
	}
	if letter == 'L' { // a label is free text
		return nil
	}
	for part := range strings.SplitSeq(value, ",") {
		name, _, _ := strings.Cut(part, "=")
		if slices.Contains(s.forbidden, name) || strings.Contains(part, "/") {
			return fmt.Errorf("mkfs option -%c %s: %q is not allowed here", letter, value, name)
		}
	}
	return nil
}
