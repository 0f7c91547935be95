package dateratest

func valueOf[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// setDefault gives an empty string a value, setIf takes a value that is not empty.
func setDefault(s *string, standard string) { *s = firstOf(*s, standard) }
func setIf(s *string, value string)         { *s = firstOf(value, *s) }

// firstOf is the first string that is not empty.
func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
