package convert

import (
	"os"

	"golang.org/x/sys/windows"
)

// errLocked says that another process holds a lock.
const errLocked = windows.ERROR_LOCK_VIOLATION

// lockFile takes a lock, which ends with the process, in the place of one that f
// may have. It does not wait for it.
func lockFile(f *os.File, shared bool) error {
	const all = ^uint32(0)
	_ = windows.UnlockFileEx(windows.Handle(f.Fd()), 0, all, all, new(windows.Overlapped)) // there may be none
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if !shared {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	return windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, all, all, new(windows.Overlapped))
}

// isOnlyOurs is true: permissions are not those of Unix there.
func isOnlyOurs(*os.File) bool { return true }

// syncDir does nothing: Windows has no such call.
func syncDir(string) error { return nil }
