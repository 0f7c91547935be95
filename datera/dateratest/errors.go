package dateratest

import (
	"fmt"
	"net/http"
)

// failure is an error as the API answers it.
type failure struct {
	name    string
	http    int
	code    int
	message string
	details []string
}

func (f *failure) Error() string { return f.name + ": " + f.message }

// Only the codes 15 and 99 are known from real clusters; the others are stable placeholders.
func notFound(path string) error {
	return &failure{"NotFoundError", http.StatusNotFound, 1, path + " does not exist", nil}
}

func conflict(format string, args ...any) error {
	return &failure{"ConflictError", http.StatusConflict, 2, fmt.Sprintf(format, args...), nil}
}

func refused(format string, args ...any) error {
	return &failure{"InvalidRequestError", http.StatusBadRequest, 3, fmt.Sprintf(format, args...), nil}
}

func duplicateSnapshot(uuid string) error {
	return &failure{"InvalidRequestError", http.StatusBadRequest, 15, "a snapshot with uuid " + uuid + " exists already", nil}
}

func invalid(field, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if field != "" {
		text = field + ": " + text
	}
	return &failure{"ValidationFailedError", http.StatusUnprocessableEntity, 4, "request body: " + text, []string{text}}
}

func authFailed(message string) error {
	return &failure{"AuthFailedError", http.StatusUnauthorized, 5, message, nil}
}

func permissionDenied(format string, args ...any) error {
	return &failure{"PermissionDeniedError", http.StatusForbidden, 8, fmt.Sprintf(format, args...), nil}
}

func internal(err error) error {
	return &failure{"InternalError", http.StatusInternalServerError, 6, err.Error(), nil}
}

func unsupportedVersion(asked string) error {
	return &failure{"UnsupportedVersionError", http.StatusBadRequest, 7, fmt.Sprintf("API version %s is not supported, only %v", asked, versions), nil}
}

func invalidRoute(method, path string) error {
	return &failure{"InvalidRouteError", http.StatusNotFound, 99, fmt.Sprintf("no route for %s %s: it does not exist", method, path), nil}
}
