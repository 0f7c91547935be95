package support

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

const hiddenText = "(hidden)"

// secretWords mark the name of a secret.
const secretWords = "password|passwd|secret|token"

// namedSecret finds what a text calls a secret, in the ways in which configurations, node records, JSON (also within
// JSON), programs' arguments and flags are written: what comes before it, and the secret, perhaps in quotes.
func namedSecret() *regexp.Regexp {
	name := `(?:` + secretWords + `)[\w./-]*` // or its end
	before := name + `\\*["']?[ \t]*[:=][ \t]*|` + name + `[ \t]+-v[ \t]+|--[\w-]*` + name + `[ \t]+`
	return regexp.MustCompile(`(?i)(` + before + `)(?:(")((?:[^"\\\n]|\\.)*)|(')((?:[^'\n]|'')*)|(\\+["'])([^"'\\\n]*)|([^\s"'\\,}]+))`)
}

// redactor hides secrets: known ones wherever they stand, and whatever is called one.
type redactor struct {
	known []string
	named *regexp.Regexp
}

// newRedactor knows secrets, and those that the texts (a configuration, node records) hold.
func newRedactor(secrets []string, texts ...string) redactor {
	r := redactor{named: namedSecret()}
	for _, text := range texts {
		for _, match := range r.named.FindAllStringSubmatch(text, -1) {
			secrets = append(secrets, match[3]+match[5]+match[7]+match[8])
		}
	}
	for _, secret := range secrets {
		if secret == "" || secret == hiddenText {
			continue
		}
		escaped, _ := json.Marshal(secret)
		r.known = append(r.known, secret, strings.Trim(string(escaped), `"`), url.QueryEscape(secret), url.PathEscape(secret),
			base64.StdEncoding.EncodeToString([]byte(secret)))
	}
	slices.Sort(r.known)
	r.known = slices.Compact(r.known)
	return r
}

// span is a part of a text, in bytes.
type span struct{ begin, end int }

// hide finds both kinds in the text as it is: one that was replaced could hide the name, or the rest, of another.
func (r redactor) hide(text string) string {
	var secrets []span
	for _, known := range r.known {
		for at := 0; ; {
			next := strings.Index(text[at:], known)
			if next < 0 {
				break
			}
			at += next
			secrets = append(secrets, span{at, at + len(known)})
			at++
		}
	}
	at := 0
	for line := range strings.Lines(text) {
		if mayNameSecret(line) { // most lines of a long log do not, and expressions are slow
			secrets = append(secrets, r.namedIn(line, at)...)
		}
		at += len(line)
	}
	return without(text, secrets)
}

// namedIn finds what a line, which begins at a place of the text, calls a secret.
func (r redactor) namedIn(line string, at int) []span {
	var secrets []span
	for _, match := range r.named.FindAllStringSubmatchIndex(line, -1) {
		for _, group := range []int{3, 5, 7, 8} {
			if begin, end := match[2*group], match[2*group+1]; begin < end {
				secrets = append(secrets, span{at + begin, at + end})
			}
		}
	}
	return secrets
}

// without is a text with something else in place of spans, which may overlap.
func without(text string, spans []span) string {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end)) })
	var shown strings.Builder
	done := 0
	for _, s := range spans {
		if s.begin > done || done == 0 {
			shown.WriteString(text[done:s.begin])
			shown.WriteString(hiddenText)
		}
		done = max(done, s.end)
	}
	shown.WriteString(text[done:])
	return shown.String()
}

func mayNameSecret(line string) bool {
	line = strings.ToLower(line)
	for word := range strings.SplitSeq(secretWords, "|") {
		if strings.Contains(line, word) {
			return true
		}
	}
	return false
}
