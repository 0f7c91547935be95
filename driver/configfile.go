package driver

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
)

// readConfig refuses a file that others may read: it holds the array's password.
func readConfig(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("configuration %s is no regular file", path)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("configuration %s has mode %04o and holds the array's password: make it unreadable to others with chmod 0600 %s",
			path, info.Mode().Perm(), path)
	}
	return os.ReadFile(path)
}

var unknownField = pattern(`unknown field "([^"]*)"`)

// redactedSyntax says what is wrong with a file, without a value of it: that may be the password.
func redactedSyntax(err error) error {
	if match := unknownField().FindStringSubmatch(err.Error()); match != nil {
		return unknownConfigKey(match[1])
	}
	if mismatch, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && mismatch.Field != "" {
		return fmt.Errorf("%s: accepted is %s", mismatch.Field, acceptedFor(typeOf(reflect.TypeFor[Config](), mismatch.Field)))
	}
	return errors.New("it is neither valid JSON nor valid YAML of keys and their values (the offending text is not shown, it may hold a secret)")
}

func acceptedFor(field reflect.Type) string {
	switch field.Kind() {
	case reflect.Int:
		return "a whole number, without quotes"
	case reflect.Slice:
		return "a list of texts, such as [first, second]"
	case reflect.Struct:
		return "a section with the keys " + strings.Join(keysOf(field), ", ")
	}
	return "a text"
}

// looksLikeAKey keeps a password from being shown that a missing blank or colon has made part of its key.
var looksLikeAKey = pattern(`\A[A-Za-z_.]{1,24}\z`)

// unknownConfigKey says which key was meant, and where it is written. The decoder tells the name alone, also of a key in a section.
func unknownConfigKey(key string) error {
	if !looksLikeAKey().MatchString(key) {
		return errors.New("a key is unknown, and is not shown: perhaps a value of it, after a colon without a blank, or without a colon")
	}
	apart := func(known string) int {
		if strings.HasPrefix(lastOf(known), strings.ToLower(key)) {
			return 1 // it was cut short
		}
		return min(distance(key, known), distance(key, lastOf(known)))
	}
	meant := slices.MinFunc(keysOf(reflect.TypeFor[Config]()), func(a, b string) int { return apart(a) - apart(b) })
	section, name, nested := strings.Cut(meant, ".")
	switch {
	case nested && strings.EqualFold(lastOf(key), name):
		return fmt.Errorf("unknown key %s: write %s in section %s", quoteShort(key), name, section)
	case nested:
		return fmt.Errorf("unknown key %s: did you mean %s? Write it in section %s", quoteShort(key), name, section)
	case strings.EqualFold(key, meant):
		return fmt.Errorf("unknown key %s in a section: write it at the top level", quoteShort(key))
	}
	return fmt.Errorf("unknown key %s: did you mean %s?", quoteShort(key), meant)
}

// lastOf is the name of a key within its section.
func lastOf(key string) string { return key[strings.LastIndex(key, ".")+1:] }

// typeOf is that of a key as keysOf lists it.
func typeOf(section reflect.Type, key string) reflect.Type {
	first, rest, nested := strings.Cut(key, ".")
	for _, field := range reflect.VisibleFields(section) {
		switch {
		case keyOfField(field) != first:
		case nested:
			return typeOf(field.Type, rest)
		default:
			return field.Type
		}
	}
	return reflect.TypeFor[string]()
}

func keyOfField(field reflect.StructField) string {
	key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	return key
}

// keysOf lists the keys of a section, and those of the sections in it as "log.level".
func keysOf(section reflect.Type) []string {
	var keys []string
	for _, field := range reflect.VisibleFields(section) {
		key := keyOfField(field)
		if key == "-" || key == "" {
			continue
		}
		keys = append(keys, key)
		if field.Type.Kind() == reflect.Struct {
			for _, inner := range keysOf(field.Type) {
				keys = append(keys, key+"."+inner)
			}
		}
	}
	return keys
}
