package store

import (
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
	freelistFlag = 0x10
	manyEntries  = 0xFFFF // the count follows the header
	noFreelist   = ^uint64(0)
)

// meta is what checkFile needs of a meta page.
type meta struct {
	pageSize                uint32
	freelist, highest, txid uint64
}

// checkFile checks for damage that would end in a fatal error of bbolt: that the
// file is as long as it should be, and that its list of free pages is sound, for
// which bbolt allocates whatever length it reads.
func checkFile(f *os.File) error {
	m, ok := latestMeta(f)
	if !ok {
		return &damage{"no valid meta page"}
	}
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	size := uint64(m.pageSize)
	if m.highest > uint64(fi.Size())/size {
		return &damage{fmt.Sprintf("%d octets long, but %d pages of %d octets are in use", fi.Size(), m.highest, size)}
	}
	if m.freelist == noFreelist {
		return nil
	}
	header := make([]byte, pageHeader+8)
	if _, err := f.ReadAt(header, int64(m.freelist*size)); err != nil || m.freelist >= m.highest {
		return &damage{"the list of free pages is missing"}
	}
	count := uint64(binary.NativeEndian.Uint16(header[10:]))
	pages := uint64(binary.NativeEndian.Uint32(header[12:])) + 1
	start := uint64(pageHeader)
	if count == manyEntries {
		count, start = binary.NativeEndian.Uint64(header[pageHeader:]), start+8
	}
	if binary.NativeEndian.Uint64(header) != m.freelist || binary.NativeEndian.Uint16(header[8:]) != freelistFlag ||
		pages > m.highest-m.freelist || count > (pages*size-start)/8 {
		return &damage{"the list of free pages is invalid"}
	}
	list := make([]byte, count*8)
	if _, err := f.ReadAt(list, int64(m.freelist*size+start)); err != nil {
		return &damage{"the list of free pages is missing"}
	}
	last := uint64(1)
	for ; len(list) > 0; list = list[8:] {
		id := binary.NativeEndian.Uint64(list)
		if id <= last || id >= m.highest {
			return &damage{"the list of free pages is out of order"}
		}
		last = id
	}
	return nil
}

// latestMeta returns the valid meta page that was written last.
func latestMeta(f *os.File) (latest meta, ok bool) {
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
		freelist: binary.NativeEndian.Uint64(b[32:]),
		highest:  binary.NativeEndian.Uint64(b[40:]),
		txid:     binary.NativeEndian.Uint64(b[48:]),
	}
	return m, m.pageSize >= 1<<10 && m.pageSize <= 1<<24 && m.highest < 1<<40
}
