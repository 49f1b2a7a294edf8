//go:build unix

package convert

import (
	"errors"
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
	for {
		if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != unix.EINTR {
			return err
		}
	}
}

// isOnlyOurs reports whether an open file belongs to this user and has one name.
func isOnlyOurs(f *os.File) bool {
	var info unix.Stat_t
	return unix.Fstat(int(f.Fd()), &info) == nil && info.Nlink == 1 && int(info.Uid) == os.Geteuid()
}

// syncDir makes renames in a folder last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	for _, lacking := range []error{unix.EINVAL, unix.ENOTSUP, unix.ENOSYS} {
		if errors.Is(err, lacking) {
			return nil // not every file system has it
		}
	}
	return err
}
