package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	// DefaultMemory and DefaultMaxSize are the defaults of Options, in octets.
	DefaultMemory  = 64 << 20
	DefaultMaxSize = 256 << 20

	// MinMaxSize is the minimum of Options.MaxSize, in octets.
	MinMaxSize = 1 << 20

	// lockTimeout is how long Open waits for another process that has the
	// file, such as one that is about to end.
	lockTimeout = time.Second

	// maxDamaged is how many damaged files are kept.
	maxDamaged = 5
)

// Options configure a store on disk. The zero value of each field is its default.
type Options struct {
	// Memory limits how many octets of the store are held in memory.
	// Default: DefaultMemory.
	Memory int64

	// MaxSize limits the file, in octets: MinMaxSize or more. When it is
	// nearly full, the least recently used mailboxes are deleted from it.
	// Default: DefaultMaxSize.
	MaxSize int64

	// Log receives reports of damage and of failures to write. Default:
	// slog.Default().
	Log *slog.Logger
}

// errInUse means that another process has locked the file.
var errInUse = errors.New("another popgate uses it")

// errLost is the error of a store that has lost its file for good.
var errLost = errors.New("store: the file is lost, new records are kept in memory only")

// Open opens the store in the file path, or creates it; its directory must exist.
// The process locks the file. A store that is damaged is renamed and logged, and a
// new one is created; a file that is no store is refused with ErrNotStore. A mode
// that lets others use the file is changed and logged. Writing is delayed by up to about a
// second, except for unique-ids; Close writes what is left.
func Open(path string, o Options) (*Store, error) {
	o.Memory = cmp.Or(o.Memory, DefaultMemory)
	o.MaxSize = cmp.Or(o.MaxSize, DefaultMaxSize)
	o.Log = cmp.Or(o.Log, slog.Default())
	if o.MaxSize < MinMaxSize {
		return nil, fmt.Errorf("store %s: a limit of %d octets is below %d", path, o.MaxSize, int64(MinMaxSize))
	}
	d := &disk{path: path, maxSize: o.MaxSize, log: o.Log, broken: make(chan *damage, 1)}
	if err := d.open(); err != nil {
		return nil, fmt.Errorf("store %s: %w", path, err)
	}
	s := NewMemory(o.Memory)
	s.writer = newWriter(s, d, o.Memory/4)
	return s, nil
}

// What Inspect finds where nothing is wrong.
const (
	findingGood  = "good"
	findingInUse = "in use by a running popgate"
)

// Inspect looks at the file path as Open would, and changes nothing. It returns
// what it finds, worded for an operator; an error is one that Open would return
// too.
func Inspect(path string) (finding string, err error) {
	dir := filepath.Dir(path)
	if fi, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("store %s: %w", path, err)
	} else if !fi.IsDir() {
		return "", fmt.Errorf("store %s: %s is not a directory", path, dir)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "does not exist yet; serve will create it", nil
	}
	d := &disk{path: path}
	err = d.inspect()
	found, damaged := errors.AsType[*damage](err)
	if damaged {
		err = d.refuseForeign(found)
		found, damaged = errors.AsType[*damage](err)
	}
	switch {
	case errors.Is(err, errInUse):
		return findingInUse, nil
	case damaged:
		return "damaged; serve will set it aside and create a new one: " + found.reason, nil
	case err != nil:
		return "", fmt.Errorf("store %s: %w", path, err)
	}
	if fi, err := os.Stat(path); err == nil && exposed(fi) {
		return fmt.Sprintf("good, but others may use it (mode %04o): serve will make that 0600", fi.Mode().Perm()), nil
	}
	return findingGood, nil
}

// open opens the file. If it is damaged, it sets it aside and creates a new one.
func (d *disk) open() error {
	err := d.inspect()
	if found, ok := errors.AsType[*damage](err); ok {
		err = d.refuseForeign(found)
	}
	if _, ok := errors.AsType[*damage](err); ok || err == nil {
		if failed := d.protect(); failed != nil {
			return failed
		}
	}
	if err == nil {
		err = d.openFile()
	}
	if found, ok := errors.AsType[*damage](err); ok {
		if err := d.setAside(found); err != nil {
			return err
		}
		err = d.openFile()
	}
	return err
}

// openFile opens the file to read and write, and creates what is missing.
func (d *disk) openFile() error {
	var file *os.File
	var db *bolt.DB
	err := guard(func() (err error) {
		opts := bolt.Options{FreelistType: bolt.FreelistMapType, MaxSize: int(d.maxSize)}
		db, err = openBolt(d.path, opts, &file)
		if err != nil {
			return err
		}
		db.AllocSize = int(min(d.maxSize/16, int64(db.AllocSize)))
		return db.Update(createBuckets)
	})
	if err == nil {
		syncDirectory(filepath.Dir(d.path))
		d.mu.Lock()
		d.db, d.file = db, file
		d.mu.Unlock()
		return nil
	}
	if file != nil {
		_ = file.Close() // may be closed already
	}
	return asDamage(err)
}

// openBolt opens path by bbolt and sets file, also where bbolt fails, panics or
// leaves it open.
func openBolt(path string, opts bolt.Options, file **os.File) (*bolt.DB, error) {
	opts.Timeout = lockTimeout
	opts.OpenFile = func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
		f, err = os.OpenFile(name, flag, mode)
		*file = f
		return f, err
	}
	return bolt.Open(path, 0o600, &opts)
}

// createBuckets creates the buckets of a new file.
func createBuckets(tx *bolt.Tx) error {
	for _, name := range [][]byte{bucketMeta, bucketMailboxes, bucketRecords} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketMeta).Put(keyFormat, []byte(formatName))
}

// damageErrors are the errors of bbolt that mean damage.
var damageErrors = []error{bolterrors.ErrInvalid, bolterrors.ErrVersionMismatch, bolterrors.ErrChecksum, bolterrors.ErrIncompatibleValue}

// asDamage returns err, or a *damage if err means that the file is damaged. A
// full disk is not damage.
func asDamage(err error) error {
	if slices.ContainsFunc(damageErrors, func(d error) bool { return errors.Is(err, d) }) {
		return &damage{reason: err.Error()}
	}
	if errors.Is(err, bolterrors.ErrTimeout) {
		return errInUse
	}
	return err
}

// inspect checks the file, if there is one, before it is opened to write: bbolt
// trusts its content.
func (d *disk) inspect() error {
	fi, err := os.Stat(d.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // openFile reports a missing directory
	case err != nil:
		return err
	case !fi.Mode().IsRegular():
		return errors.New("not a regular file")
	case fi.Size() == 0:
		return nil
	}
	var db *bolt.DB
	var file *os.File
	err = guard(func() (err error) {
		db, err = openBolt(d.path, bolt.Options{ReadOnly: true}, &file)
		if err != nil {
			return err
		}
		if err := checkFile(file); err != nil {
			return err
		}
		return db.View(checkBuckets)
	})
	switch {
	case err == nil:
		err = guard(db.Close)
	case file != nil:
		_ = file.Close() // may be closed already; bbolt's Close may fail on damage
	}
	_, isSystem := errors.AsType[syscall.Errno](err)
	_, isDamage := errors.AsType[*damage](err)
	if err == nil || isSystem || isDamage || errors.Is(err, bolterrors.ErrTimeout) {
		return asDamage(err)
	}
	return &damage{reason: err.Error()} // the file could be read, so its content is wrong
}

// checkBuckets checks for the buckets that openFile creates. A file without any
// bucket is valid: its creation was interrupted.
func checkBuckets(tx *bolt.Tx) error {
	empty := true
	err := tx.ForEach(func([]byte, *bolt.Bucket) error {
		empty = false
		return nil
	})
	if err != nil || empty {
		return err
	}
	meta, mailboxes, records := tx.Bucket(bucketMeta), tx.Bucket(bucketMailboxes), tx.Bucket(bucketRecords)
	none := mailboxes == nil && records == nil
	if meta == nil {
		return &damage{reason: "the database of another program", foreign: none}
	}
	format := string(meta.Get(keyFormat))
	if none && !strings.HasPrefix(format, formatMark) {
		return &damage{reason: "the database of another program", foreign: true}
	}
	if format != formatName && !slices.Contains(formatsBefore, format) {
		return &damage{reason: fmt.Sprintf("its format is %.40q, not %q", format, formatName)}
	}
	if mailboxes == nil || records == nil {
		return &damage{reason: "a part is missing"}
	}
	return mailboxes.ForEach(func(k, v []byte) error { return nil })
}

// setAside renames the file. It keeps the last few files that were set aside.
func (d *disk) setAside(found *damage) error {
	older, _ := filepath.Glob(d.path + ".damaged-*") // fails only for a bad pattern
	slices.Sort(older)
	for ; len(older) >= maxDamaged; older = older[1:] {
		if err := os.Remove(older[0]); err != nil {
			return err
		}
	}
	name := d.path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	if err := os.Rename(d.path, name); err != nil {
		return err
	}
	d.log.Warn("store is set aside and a new one created", "path", d.path, "reason", found.reason, "kept", name)
	return nil
}

// replace sets aside a file that has proved damaged while in use, and creates a
// new one.
func (d *disk) replace(found *damage) error {
	_ = d.close(true)
	if err := d.setAside(found); err != nil {
		return err
	}
	return d.openFile()
}

// syncDirectory makes the name of a new file durable, where the system can.
func syncDirectory(name string) {
	if dir, err := os.Open(name); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
}
