package convert

import (
	"os"

	"golang.org/x/sys/windows"
)

// errLocked says that another process holds a lock.
const errLocked = windows.ERROR_LOCK_VIOLATION

// lockFile takes a lock, which ends with the process, and does not wait for it.
func lockFile(f *os.File, shared bool) error {
	const all = ^uint32(0)
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if !shared {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	return windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, all, all, new(windows.Overlapped))
}

// syncDir does nothing: Windows has no such call.
func syncDir(string) error { return nil }
