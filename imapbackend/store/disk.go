package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// The file is a bbolt database of three buckets.
//
//	meta       "format" → formatName
//	mailboxes  a digest of upstream, user and mailbox → the hour of last use
//	records    the digest, kind, UTF8 mode, source and suffix → a chunk
//
// Names are stored as digests only: the file does not reveal who has an account.
var (
	bucketMeta      = []byte("meta")
	bucketMailboxes = []byte("mailboxes")
	bucketRecords   = []byte("records")
	keyFormat       = []byte("format")
)

// formatName names the format and its version. A file of one of formatsBefore is
// read as it is: in the first, UIDVALIDITY, UIDNEXT and UIDs have at
// most 32 bits, and in both the heads of records have no digest.
const formatName = "popgate store 3"

var formatsBefore = []string{"popgate store 1", "popgate store 2"}

// digestSize is how many octets of SHA-256 identify a mailbox.
const digestSize = 16

type digest [digestSize]byte

// digestOf is the same in and out of UTF8 mode.
func digestOf(key Key) (d digest) {
	h := sha256.New()
	for _, name := range []string{key.Upstream, key.User, key.Mailbox} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(name))))
		h.Write([]byte(name))
	}
	copy(d[:], h.Sum(nil))
	return d
}

// prefix returns the common prefix of a record's keys.
func (id recordID) prefix() []byte {
	d := digestOf(id.Key)
	utf8 := byte(0)
	if id.UTF8 {
		utf8 = 1
	}
	source := id.source[:min(len(id.source), 255)]
	return append(append(d[:], byte(id.kind), utf8, byte(len(source))), source...)
}

// disk is the file. Reading is safe for concurrent use; one goroutine writes and
// replaces the file. Only one goroutine at a time reads with bbolt: when bbolt
// finds damage it may keep a lock, for which another would wait for ever.
type disk struct {
	path    string
	maxSize int64
	log     *slog.Logger

	mu     sync.Mutex // held to read, and to replace the file
	db     *bolt.DB   // nil: the file is lost
	file   *os.File   // of db
	failed *damage    // the damage found in it, or nil

	broken chan *damage // full: the file must be replaced
	octets atomic.Int64 // sum of keys and values written so far
}

// damage is an error of a file that cannot be trusted.
type damage struct {
	reason  string
	foreign bool // it is whole, but no store
}

func (d *damage) Error() string { return "damaged: " + d.reason }

// guard runs f, which reads or writes the file. A damaged page makes bbolt panic
// or read outside the file: guard turns both into a *damage.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &damage{reason: fmt.Sprint(p)}
		}
	}()
	return f()
}

// view reads the file.
func (d *disk) view(f func(*bolt.Tx) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.db == nil:
		return errLost
	case d.failed != nil:
		return d.failed
	}
	err := guard(func() error { return d.db.View(f) })
	if found, ok := errors.AsType[*damage](err); ok {
		d.failed = found
		d.broken <- found
	}
	return err
}

// read returns a record, nil if there is none. invalid reports that all or part
// of the record on the disk cannot be trusted.
func (d *disk) read(id recordID) (r record, invalid bool, err error) {
	prefix := id.prefix()
	dec := newDecoder(id)
	found := false
	err = d.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketRecords).Cursor()
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			found = true
			dec.add(string(k[len(prefix):]), v, k)
		}
		return nil
	})
	if err != nil || !found {
		return nil, false, err
	}
	r, invalid = dec.record()
	return r, invalid, nil
}

// change is a value to write or, if value is nil, a key to delete.
type change struct{ bucket, key, value []byte }

// batch is what is written in one transaction.
type batch struct {
	records map[recordID]record // a nil record is deleted
	used    map[digest]int64    // hour of last use
}

// write writes b to the disk, each record wholly or not at all. The size of a
// transaction is limited.
func (d *disk) write(b batch) error {
	plans, err := d.plan(b)
	if err != nil {
		return err
	}
	var group []change
	for _, changes := range plans {
		if len(group) > 0 && sizeOf(group)+sizeOf(changes) > d.share(recordShare) {
			if err := d.commit(group); err != nil {
				return err
			}
			group = nil
		}
		group = append(group, changes...)
	}
	return d.commit(group)
}

func (d *disk) commit(changes []change) error {
	if len(changes) == 0 {
		return nil
	}
	if err := d.makeRoom(changes); err != nil {
		return err
	}
	err := d.apply(changes)
	if errors.Is(err, bolterrors.ErrMaxSizeReached) { // its free pages do not fit
		if err = d.evict(d.share(recordShare)); err == nil {
			err = d.apply(changes)
		}
		if errors.Is(err, bolterrors.ErrMaxSizeReached) && sizeOf(changes) <= d.share(recordShare) {
			// There is room: a damaged page makes bbolt want more.
			err = &damage{reason: err.Error()}
		}
	}
	return err
}

// plan compares b with the file and returns the changes, grouped by record.
func (d *disk) plan(b batch) (plans [][]change, err error) {
	err = d.view(func(tx *bolt.Tx) error {
		var uses []change
		mailboxes := tx.Bucket(bucketMailboxes)
		for name, hour := range b.used {
			key := bytes.Clone(name[:])
			if hour > hourOf(key, mailboxes.Get(key)) {
				uses = append(uses, change{bucketMailboxes, key, addChecksum(key, binary.AppendUvarint(nil, uint64(hour)))})
			}
		}
		plans = append(plans, uses)
		records := tx.Bucket(bucketRecords)
		for id, r := range b.records {
			plans = append(plans, planRecord(records.Cursor(), id.prefix(), r))
		}
		return nil
	})
	return plans, err
}

// planRecord returns the changes that replace the record at prefix by r.
func planRecord(c *bolt.Cursor, prefix []byte, r record) (changes []change) {
	wanted := make(map[string][]byte)
	if r != nil {
		for _, ch := range r.chunks() {
			wanted[ch.suffix] = ch.body
		}
	}
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		suffix := string(k[len(prefix):])
		body, ok := wanted[suffix]
		delete(wanted, suffix)
		switch {
		case !ok:
			changes = append(changes, change{bucketRecords, bytes.Clone(k), nil})
		case len(v) != 4+len(body) || !bytes.Equal(v[4:], body) || binary.BigEndian.Uint32(v) != checksum(k, body):
			changes = append(changes, change{bucketRecords, bytes.Clone(k), addChecksum(k, body)})
		}
	}
	for _, suffix := range slices.Sorted(maps.Keys(wanted)) {
		key := append(bytes.Clone(prefix), suffix...)
		changes = append(changes, change{bucketRecords, key, addChecksum(key, wanted[suffix])})
	}
	return changes
}

// hourOf decodes the hour of last use; it is 0 if value is invalid.
func hourOf(key, value []byte) int64 {
	body, ok := verifyChecksum(key, value)
	if !ok {
		return 0
	}
	hour, n := binary.Uvarint(body)
	if n <= 0 || hour > 1<<32 {
		return 0
	}
	return int64(hour)
}

// thisHour returns the time in hours since 1970.
func thisHour() int64 { return time.Now().Unix() / 3600 }

// apply makes changes in one transaction.
func (d *disk) apply(changes []change) error {
	return asDamage(guard(func() error {
		return d.db.Update(func(tx *bolt.Tx) error {
			for _, c := range changes {
				b := tx.Bucket(c.bucket)
				var err error
				if c.value == nil {
					err = b.Delete(c.key)
				} else {
					err = b.Put(c.key, c.value)
					d.octets.Add(int64(len(c.key) + len(c.value)))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}))
}

// close closes the database. Of a damaged one it closes only the file: bbolt's
// Close might wait for ever.
func (d *disk) close(damaged bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	db, file := d.db, d.file
	d.db, d.file, d.failed = nil, nil, nil
	select {
	case <-d.broken:
	default:
	}
	switch {
	case db == nil:
		return nil
	case damaged:
		return file.Close()
	}
	return guard(db.Close)
}
