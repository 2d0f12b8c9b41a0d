package file

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// acquire takes the folder's lock without waiting. The kernel lets it go when
// the process ends, even by kill -9; the file itself stays. Its content is the
// holder's process id, for the other's error message only.
func acquire(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("state folder %s: %w; name a folder that rolloutd may write to", dir, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = fmt.Errorf("state folder %s is held by %s; stop it, or name another folder", dir, holder(f))
	case err != nil:
		err = fmt.Errorf("state folder %s cannot be locked: %w; name a folder on a local disk", dir, err)
	default:
		err = sign(f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func sign(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("state folder's lock: %w", err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("state folder's lock: %w", err)
	}
	return nil
}

// holder names who holds the lock; just after taking it, it may not have signed.
func holder(f *os.File) string {
	b, _ := io.ReadAll(io.LimitReader(f, 32))
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
		return fmt.Sprintf("another rolloutd (pid %d)", pid)
	}
	return "another rolloutd"
}
