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
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	// DefaultMemory and DefaultMaxSize are those of Options, in octets.
	DefaultMemory  = 64 << 20
	DefaultMaxSize = 256 << 20

	// MinMaxSize is the least that Options.MaxSize may be.
	MinMaxSize = 1 << 20

	// lockPatience is how long another process may hold the file, such as
	// one that is about to end.
	lockPatience = time.Second

	// keptDamaged is how many damaged files are kept.
	keptDamaged = 5
)

// Options are those of a store on disk. The zero value of each field is its
// default.
type Options struct {
	// Memory bounds, in octets, what is held in memory of what is on the
	// disk. Default: DefaultMemory.
	Memory int64

	// MaxSize bounds the file, in octets: MinMaxSize or more. When it is
	// nearly full the mailboxes are forgotten that have not been used for
	// longest. Default: DefaultMaxSize.
	MaxSize int64

	// Log is told of damage and of failures to write. Default:
	// slog.Default().
	Log *slog.Logger
}

// errInUse is the lock of another process on the file.
var errInUse = errors.New("another popgate uses it")

// errLost is what a store answers that has lost its file for good.
var errLost = errors.New("store: the file is lost, what is new is kept in memory only")

// Open opens the store in the file path, or begins it; the directory must be
// there. The process has the file for itself. One that is damaged, or not a
// store, is renamed and logged, and a new one begun. Writing is delayed by up
// to about a second, but for unique-ids; Close writes what is left.
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

// Inspect looks at the file path as Open would, and changes nothing. It says in
// words for an operator what it finds; an error is one that Open would return
// too.
func Inspect(path string) (finding string, err error) {
	dir := filepath.Dir(path)
	if fi, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("store %s: %w", path, err)
	} else if !fi.IsDir() {
		return "", fmt.Errorf("store %s: %s is not a directory", path, dir)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "to be made by serve", nil
	}
	err = (&disk{path: path}).inspect()
	found, damaged := errors.AsType[*damage](err)
	switch {
	case errors.Is(err, errInUse):
		return "in use by a popgate that runs", nil
	case damaged:
		return "damaged, serve will set it aside and begin a new one: " + found.reason, nil
	case err != nil:
		return "", fmt.Errorf("store %s: %w", path, err)
	}
	return "good", nil
}

// open opens the file, or a new one where it is damaged.
func (d *disk) open() error {
	err := d.inspect()
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

// openFile opens the file to read and write, and makes what is missing.
func (d *disk) openFile() error {
	var file *os.File
	var db *bolt.DB
	err := guard(func() (err error) {
		db, err = bolt.Open(d.path, 0o600, &bolt.Options{
			Timeout:      lockPatience,
			FreelistType: bolt.FreelistMapType,
			MaxSize:      int(d.maxSize),
			OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
				f, err = os.OpenFile(name, flag, mode)
				file = f
				return f, err
			},
		})
		if err != nil {
			return err
		}
		db.AllocSize = int(min(d.maxSize/16, int64(db.AllocSize)))
		return db.Update(begin)
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

// begin makes the buckets of a new file.
func begin(tx *bolt.Tx) error {
	for _, name := range [][]byte{bucketMeta, bucketMailboxes, bucketRecords} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketMeta).Put(keyFormat, []byte(formatName))
}

// mangled are errors of bbolt that only damage brings about.
var mangled = []error{bolterrors.ErrInvalid, bolterrors.ErrVersionMismatch, bolterrors.ErrChecksum, bolterrors.ErrIncompatibleValue}

// asDamage returns err, as damage where it is that. A disk that is full is not.
func asDamage(err error) error {
	if slices.ContainsFunc(mangled, func(m error) bool { return errors.Is(err, m) }) {
		return &damage{err.Error()}
	}
	if errors.Is(err, bolterrors.ErrTimeout) {
		return errInUse
	}
	return err
}

// inspect looks at the file, if there is one, before it is opened to write:
// bbolt takes on trust what is in it.
func (d *disk) inspect() error {
	fi, err := os.Stat(d.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // openFile says so where the directory is missing
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
		db, err = bolt.Open(d.path, 0o600, &bolt.Options{
			ReadOnly: true,
			Timeout:  lockPatience,
			OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
				f, err = os.OpenFile(name, flag, mode)
				file = f
				return f, err
			},
		})
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
		_ = file.Close() // may be closed already; bbolt is not to be trusted with the rest
	}
	_, isSystem := errors.AsType[syscall.Errno](err)
	_, isDamage := errors.AsType[*damage](err)
	if err == nil || isSystem || isDamage || errors.Is(err, bolterrors.ErrTimeout) {
		return asDamage(err)
	}
	return &damage{err.Error()} // what else could it be, of a file that is read
}

// checkBuckets looks for what openFile makes. A file with nothing in it is one
// whose making was cut short.
func checkBuckets(tx *bolt.Tx) error {
	empty := true
	err := tx.ForEach(func([]byte, *bolt.Bucket) error {
		empty = false
		return nil
	})
	if err != nil || empty {
		return err
	}
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return &damage{"the database of another program"}
	}
	if format := string(meta.Get(keyFormat)); format != formatName {
		return &damage{fmt.Sprintf("its format is %.40q, not %q", format, formatName)}
	}
	mailboxes, records := tx.Bucket(bucketMailboxes), tx.Bucket(bucketRecords)
	if mailboxes == nil || records == nil {
		return &damage{"a part is missing"}
	}
	return mailboxes.ForEach(func(k, v []byte) error { return nil })
}

// setAside renames the file, keeping a few of earlier ones.
func (d *disk) setAside(found *damage) error {
	older, _ := filepath.Glob(d.path + ".damaged-*") // fails on bad patterns only
	slices.Sort(older)
	for ; len(older) >= keptDamaged; older = older[1:] {
		if err := os.Remove(older[0]); err != nil {
			return err
		}
	}
	name := d.path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	if err := os.Rename(d.path, name); err != nil {
		return err
	}
	d.log.Warn("store is set aside and a new one begun", "path", d.path, "reason", found.reason, "kept", name)
	return nil
}

// replace puts a new file in the place of one that has turned out damaged.
func (d *disk) replace(found *damage) error {
	_ = d.close(true)
	if err := d.setAside(found); err != nil {
		return err
	}
	return d.openFile()
}

// syncDirectory makes the name of a new file last, where the system can.
func syncDirectory(name string) {
	if dir, err := os.Open(name); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
}
