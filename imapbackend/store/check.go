package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The parts of bbolt's file that checkFile reads, in the byte order of the
// machine. A page begins with a header of 16 octets: its number, its flags, a
// count, and how many of the next pages belong to it. The first two pages are
// meta pages.
const (
	pageHeader   = 16
	metaLen      = 64 // octets; the last are the checksum of the others
	metaMagic    = 0xED0CDAED
	branchFlag   = 0x01
	leafFlag     = 0x02
	freelistFlag = 0x10
	elementLen   = 16     // octets of the head of one element of a branch or leaf
	isBucket     = 0x01   // flag of an element of a leaf: its value begins with a root page
	manyEntries  = 0xFFFF // the count follows the header
	noFreelist   = ^uint64(0)
)

// meta is what checkFile needs of a meta page.
type meta struct {
	pageSize                      uint32
	root, freelist, highest, txid uint64
}

// checkFile checks for damage that would end in a fatal error of bbolt: that the
// file is as long as it should be, that its list of free pages is sound, for which
// bbolt allocates whatever length it reads, that each page has one use, and that
// keys are in order, for else bbolt descends from one page to itself without end,
// now or after it has written. It reads the whole file.
func checkFile(f *os.File) error {
	m, ok := latestMeta(f)
	if !ok {
		return &damage{reason: "no valid meta page"}
	}
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	size := uint64(m.pageSize)
	if m.highest > uint64(fi.Size())/size {
		return &damage{reason: fmt.Sprintf("%d octets long, but %d pages of %d octets are in use", fi.Size(), m.highest, size)}
	}
	t := &tree{file: f, meta: m, used: make([]bool, m.highest)}
	if m.freelist != noFreelist {
		if err := t.addFree(); err != nil {
			return err
		}
	}
	return t.walk(m.root, nil, nil, true)
}

// tree is the tree of pages.
type tree struct {
	file io.ReaderAt
	meta
	used []bool // by number: free, or found in the tree
}

// addFree reads the list of free pages.
func (t *tree) addFree() error {
	m, size := t.meta, uint64(t.pageSize)
	header := make([]byte, pageHeader+8)
	if _, err := t.file.ReadAt(header, int64(m.freelist*size)); err != nil || m.freelist >= m.highest {
		return &damage{reason: "the list of free pages is missing"}
	}
	count := uint64(binary.NativeEndian.Uint16(header[10:]))
	pages := uint64(binary.NativeEndian.Uint32(header[12:])) + 1
	start := uint64(pageHeader)
	if count == manyEntries {
		count, start = binary.NativeEndian.Uint64(header[pageHeader:]), start+8
	}
	if binary.NativeEndian.Uint64(header) != m.freelist || binary.NativeEndian.Uint16(header[8:]) != freelistFlag ||
		pages > m.highest-m.freelist || count > (pages*size-start)/8 {
		return &damage{reason: "the list of free pages is invalid"}
	}
	list := make([]byte, count*8)
	if _, err := t.file.ReadAt(list, int64(m.freelist*size+start)); err != nil {
		return &damage{reason: "the list of free pages is missing"}
	}
	last := uint64(1)
	for ; len(list) > 0; list = list[8:] {
		id := binary.NativeEndian.Uint64(list)
		if id <= last || id >= m.highest {
			return &damage{reason: "the list of free pages is out of order"}
		}
		last, t.used[id] = id, true
	}
	return nil
}

// walk checks the pages from one of the tree downwards: their keys begin with first
// and are below next, unless these are nil. In the pages of the root bucket it finds
// the other buckets.
func (t *tree) walk(id uint64, first, next []byte, root bool) error {
	page, flags, err := t.read(id)
	if err != nil {
		return err
	}
	keys := make([][]byte, binary.NativeEndian.Uint16(page[10:]))
	for i := range keys {
		key, ok := keyOf(page, i, flags)
		if !ok || i > 0 && bytes.Compare(key, keys[i-1]) <= 0 || i == 0 && first != nil && !bytes.Equal(key, first) ||
			next != nil && bytes.Compare(key, next) >= 0 {
			return &damage{reason: fmt.Sprintf("the keys of page %d are out of order", id)}
		}
		keys[i] = key
	}
	if len(keys) == 0 && (flags == branchFlag || first != nil) {
		return &damage{reason: fmt.Sprintf("page %d is empty", id)}
	}
	for i, key := range keys {
		child, ok := childOf(page, i, flags)
		switch {
		case !ok || flags == leafFlag && !root:
			continue
		case flags == leafFlag: // a bucket
			err = t.walk(child, nil, nil, false)
		case i+1 < len(keys):
			err = t.walk(child, key, keys[i+1], root)
		default:
			err = t.walk(child, key, next, root)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// read reads a page of the tree that has no other use, with its overflow.
func (t *tree) read(id uint64) (page []byte, flags uint16, err error) {
	header := make([]byte, pageHeader)
	at := int64(id) * int64(t.pageSize)
	if id < 2 || id >= t.highest {
		return nil, 0, &damage{reason: fmt.Sprintf("page %d does not exist", id)}
	}
	if _, err := t.file.ReadAt(header, at); err != nil {
		return nil, 0, err
	}
	flags = binary.NativeEndian.Uint16(header[8:])
	pages := uint64(binary.NativeEndian.Uint32(header[12:])) + 1
	if binary.NativeEndian.Uint64(header) != id || flags != branchFlag && flags != leafFlag || pages > t.highest-id {
		return nil, 0, &damage{reason: fmt.Sprintf("page %d is invalid", id)}
	}
	for i := id; i < id+pages; i++ {
		if t.used[i] {
			return nil, 0, &damage{reason: fmt.Sprintf("page %d has two uses", i)}
		}
		t.used[i] = true
	}
	page = make([]byte, pages*uint64(t.pageSize))
	_, err = t.file.ReadAt(page, at)
	return page, flags, err
}

// keyOf returns the key of an element of a page; ok is false if it is not within
// the page.
func keyOf(page []byte, i int, flags uint16) (key []byte, ok bool) {
	at := pageHeader + i*elementLen
	if at+elementLen > len(page) {
		return nil, false
	}
	element := page[at:]
	head := element
	value := uint64(0) // its octets
	if flags == leafFlag {
		head, value = element[4:], uint64(binary.NativeEndian.Uint32(element[12:]))
	}
	start := uint64(binary.NativeEndian.Uint32(head))
	end := start + uint64(binary.NativeEndian.Uint32(head[4:]))
	if end+value > uint64(len(element)) {
		return nil, false
	}
	return element[start:end], true
}

// childOf returns the page to which an element of a page refers; ok is false if it
// refers to none. The element is within the page.
func childOf(page []byte, i int, flags uint16) (child uint64, ok bool) {
	element := page[pageHeader+i*elementLen:]
	if flags == branchFlag {
		return binary.NativeEndian.Uint64(element[8:]), true
	}
	value := uint64(binary.NativeEndian.Uint32(element[4:])) + uint64(binary.NativeEndian.Uint32(element[8:]))
	if binary.NativeEndian.Uint32(element)&isBucket == 0 || value+8 > uint64(len(element)) {
		return 0, false
	}
	child = binary.NativeEndian.Uint64(element[value:])
	return child, child != 0 // else the bucket is in the value
}

// latestMeta returns the valid meta page that was written last.
func latestMeta(f io.ReaderAt) (latest meta, ok bool) {
	first, found := metaAt(f, 0)
	if found {
		latest, ok = first, true
		if m, found := metaAt(f, int64(first.pageSize)); found && m.txid > latest.txid {
			latest = m
		}
		return latest, true
	}
	for size := int64(1 << 10); size <= 1<<24; size *= 2 {
		if m, found := metaAt(f, size); found && int64(m.pageSize) == size {
			return m, true
		}
	}
	return latest, false
}

func metaAt(f io.ReaderAt, offset int64) (meta, bool) {
	page := make([]byte, pageHeader+metaLen)
	if _, err := f.ReadAt(page, offset); err != nil {
		return meta{}, false
	}
	b := page[pageHeader:]
	sum := fnv.New64a()
	sum.Write(b[:metaLen-8])
	if binary.NativeEndian.Uint32(b) != metaMagic || binary.NativeEndian.Uint64(b[metaLen-8:]) != sum.Sum64() {
		return meta{}, false
	}
	m := meta{
		pageSize: binary.NativeEndian.Uint32(b[8:]),
		root:     binary.NativeEndian.Uint64(b[16:]),
		freelist: binary.NativeEndian.Uint64(b[32:]),
		highest:  binary.NativeEndian.Uint64(b[40:]),
		txid:     binary.NativeEndian.Uint64(b[48:]),
	}
	return m, m.pageSize >= 1<<10 && m.pageSize <= 1<<24 && m.highest < 1<<40
}
