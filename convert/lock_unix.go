//go:build unix

package convert

import (
	"os"

	"golang.org/x/sys/unix"
)

// errLocked says that another process holds a lock.
const errLocked = unix.EWOULDBLOCK

// lockFile takes a lock, which ends with the process, in the place of one that f
// may have. It does not wait for it.
func lockFile(f *os.File, shared bool) error {
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	return unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
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
