package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// errCutShort says that a file has lost its end. To read what was there ends the process,
// not with an error but with a signal, since the file is mapped into memory.
var errCutShort = errors.New("its file is cut short; restore a backup")

// A meta page of bbolt (internal/common/meta.go): 16 bytes of header, and then, in the
// machine's order of bytes, what is at these places.
const (
	metaHeader   = 16
	metaMagic    = 0xED0CDAED
	metaPageSize = 8
	metaPages    = 40 // how many pages are in use, with those that are free between them
	metaTx       = 48
	metaSum      = 56 // FNV-1a of what is before
	metaLength   = 64
)

// whole returns errCutShort, wrapped, if the file is shorter than its newer meta page
// says. It says nothing of files that have none: bbolt does.
func whole(file *os.File) error {
	var used, newest uint64
	pageSize := int64(os.Getpagesize())
	for page := range int64(2) {
		meta := make([]byte, metaLength)
		if _, err := file.ReadAt(meta, page*pageSize+metaHeader); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		number := func(at int) uint64 { return binary.NativeEndian.Uint64(meta[at:]) }
		sum := fnv.New64a()
		sum.Write(meta[:metaSum])
		if binary.NativeEndian.Uint32(meta) != metaMagic || number(metaSum) != sum.Sum64() {
			continue
		}
		pageSize = int64(binary.NativeEndian.Uint32(meta[metaPageSize:]))
		if tx := number(metaTx); tx >= newest {
			newest, used = tx, number(metaPages)*uint64(pageSize)
		}
	}
	info, err := file.Stat() // after its meta pages: a file that another process has open grows first
	if err != nil {
		return err
	}
	if uint64(info.Size()) < used {
		return fmt.Errorf("%w: it has %d bytes of %d", errCutShort, info.Size(), used)
	}
	return nil
}
