package format

import (
	"path"
	"path/filepath"
	"strings"
	"unicode"
)

// IsLocal reports whether a slash-separated name from a file is clean and leads
// to a place below the folder that it is looked up in, whichever system reads
// it: no backslash or colon, which mean something on Windows, and no control
// character stands in it.
func IsLocal(name string) bool {
	return name != "." && path.Clean(name) == name && filepath.IsLocal(name) &&
		!strings.ContainsAny(name, `\:`) && !strings.ContainsFunc(name, unicode.IsControl)
}
