package convert

import (
	"os"

	"golang.org/x/sys/windows"
)

// errLocked says that another process holds a lock.
const errLocked = windows.ERROR_LOCK_VIOLATION

// lockFile takes a lock, which ends with the process.
func lockFile(f *os.File, mode lockMode) error {
	const all = ^uint32(0)
	var flags uint32
	if !mode.shared {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	if !mode.wait {
		flags |= windows.LOCKFILE_FAIL_IMMEDIATELY
	}
	return windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, all, all, new(windows.Overlapped))
}

// syncDir does nothing: Windows has no such call.
func syncDir(string) error { return nil }
