//go:build noasm || !amd64

package codec

var assembly []*Kernel
