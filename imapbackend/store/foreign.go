package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
)

// ErrNotStore is in the error of Open and Inspect for a file that is no store, not
// even a damaged one. Such a file is left as it is.
var ErrNotStore = errors.New("not a store of popgate")

// formatMark is what the name of any format contains.
const formatMark = "popgate store "

// foreign reports whether the file path, which cannot be used, is the file of
// somebody else: it has neither a head of bbolt at one of the two places for it,
// nor the name of a format anywhere, nor is it empty of everything, as what a file
// system leaves of a file that it has lost.
func foreign(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if hasHead(f) {
		return false, nil
	}
	marked, zeros := false, true
	buf := make([]byte, 64<<10)
	kept := 0 // octets of the piece before, in which the mark may begin
	for err == nil && !marked {
		var n int
		n, err = f.Read(buf[kept:])
		piece := buf[:kept+n]
		marked = bytes.Contains(piece, []byte(formatMark))
		zeros = zeros && len(bytes.Trim(piece, "\x00")) == 0
		kept = copy(buf, piece[max(0, len(piece)-len(formatMark)):])
	}
	if err != nil && err != io.EOF {
		return false, err
	}
	return !marked && !zeros, nil
}

// hasHead reports whether f has the head of a meta page of bbolt, valid or not:
// at its start, or after one page, of whatever size.
func hasHead(f io.ReaderAt) bool {
	head := make([]byte, pageHeader+4)
	for at := int64(0); at <= 1<<24; at = max(2*at, 1<<10) {
		if n, _ := f.ReadAt(head, at); n == len(head) && binary.NativeEndian.Uint32(head[pageHeader:]) == metaMagic {
			return true
		}
	}
	return false
}

// refuseForeign returns found, or an error with ErrNotStore if the file is not one
// that popgate may set aside.
func (d *disk) refuseForeign(found *damage) error {
	if found.foreign {
		return fmt.Errorf("%w: %s", ErrNotStore, found.reason)
	}
	switch other, err := foreign(d.path); {
	case err != nil:
		return err
	case other:
		return ErrNotStore
	}
	return found
}

// exposed reports whether others than the file's owner may read or write it.
func exposed(fi os.FileInfo) bool {
	return runtime.GOOS != "windows" && fi.Mode().Perm()&0o077 != 0
}

// protect takes the file away from others, if it exists: it holds the unique-ids
// of all users.
func (d *disk) protect() error {
	fi, err := os.Stat(d.path)
	if errors.Is(err, os.ErrNotExist) || err == nil && !exposed(fi) {
		return nil
	}
	if err == nil {
		err = os.Chmod(d.path, 0o600)
	}
	if err != nil {
		return fmt.Errorf("others may use it, and that cannot be changed: %w", err)
	}
	d.log.Warn("others could use the store, its mode is 0600 now", "path", d.path, "mode", fmt.Sprintf("%04o", fi.Mode().Perm()))
	return nil
}
