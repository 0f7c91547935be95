package support

import (
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
	known *strings.Replacer
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
	var forms []string
	for _, secret := range secrets {
		if secret == "" || secret == hiddenText {
			continue
		}
		escaped, _ := json.Marshal(secret)
		forms = append(forms, secret, strings.Trim(string(escaped), `"`), url.QueryEscape(secret), url.PathEscape(secret),
			base64.StdEncoding.EncodeToString([]byte(secret)))
	}
	longestFirst := func(a, b string) int { return len(b) - len(a) } // one may be part of another
	var pairs []string
	for _, form := range slices.SortedFunc(slices.Values(forms), longestFirst) {
		pairs = append(pairs, form, hiddenText)
	}
	r.known = strings.NewReplacer(pairs...)
	return r
}

func (r redactor) hide(text string) string {
	var shown strings.Builder
	for line := range strings.Lines(r.known.Replace(text)) {
		if mayNameSecret(line) { // most lines of a long log do not, and expressions are slow
			line = r.named.ReplaceAllString(line, "${1}${2}${4}${6}"+hiddenText)
		}
		shown.WriteString(line)
	}
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
