//go:build unix

package convert

import (
	"os"

	"golang.org/x/sys/unix"
)

// errLocked says that another process holds a lock.
const errLocked = unix.EWOULDBLOCK

// lockFile takes a lock, which ends with the process.
func lockFile(f *os.File, mode lockMode) error {
	how := unix.LOCK_EX
	if mode.shared {
		how = unix.LOCK_SH
	}
	if !mode.wait {
		how |= unix.LOCK_NB
	}
	return unix.Flock(int(f.Fd()), how)
}

// syncDir makes renames in a folder last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
