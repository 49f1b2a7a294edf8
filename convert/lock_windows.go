package convert

import (
	"os"

	"golang.org/x/sys/windows"
)

// lockFile takes an exclusive lock, which ends with the process.
func lockFile(f *os.File) error {
	const all = ^uint32(0)
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, all, all, new(windows.Overlapped))
}

// syncDir does nothing: Windows has no such call.
func syncDir(string) error { return nil }
