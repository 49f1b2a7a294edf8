//go:build noasm || !(amd64 || arm64)

package codec

var assembly []*Kernel
