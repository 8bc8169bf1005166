package owner

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"io"
)

// readBuild reads from a 64-bit little-endian ELF file which Go version built
// it ("1.26.8"), and its main module; "go" for that if it is Go and doesn't say.
// Not debug/buildinfo, which reads as much of a file as the file asks for: this
// one is content with three reads of at most 64 KiB, and finds nothing in a file
// that has its section table taken out.
func readBuild(r io.ReaderAt) (version, module string) {
	const most = 64 << 10
	var head [64]byte
	if _, err := r.ReadAt(head[:], 0); err != nil || string(head[:6]) != "\x7fELF\x02\x01" {
		return "", ""
	}
	order := binary.LittleEndian
	count, names := int(order.Uint16(head[60:])), int(order.Uint16(head[62:]))
	const entry = 64
	if order.Uint16(head[58:]) != entry || count*entry > most || names >= count {
		return "", ""
	}
	table := readAt(r, order.Uint64(head[40:]), count*entry)
	if len(table) < count*entry {
		return "", ""
	}
	section := func(i int) (offset, size uint64) {
		return order.Uint64(table[i*entry+24:]), order.Uint64(table[i*entry+32:])
	}
	offset, size := section(names)
	strs := readAt(r, offset, int(min(size, most)))
	for i := range count {
		name := order.Uint32(table[i*entry:])
		if uint64(name) >= uint64(len(strs)) || !bytes.HasPrefix(strs[name:], []byte(".go.buildinfo\x00")) {
			continue
		}
		offset, size := section(i)
		return parseBuild(readAt(r, offset, int(min(size, 8<<10))))
	}
	return "", ""
}

// readAt reads what is there of n bytes.
func readAt(r io.ReaderAt, offset uint64, n int) []byte {
	if offset > 1<<62 || n <= 0 {
		return nil
	}
	b := make([]byte, n)
	got, _ := r.ReadAt(b, int64(offset))
	return b[:got]
}

// parseBuild reads the beginning of the section .go.buildinfo, as Go has
// written it since 1.18: after 32 bytes of header two strings, each after its
// length, the second between marks of 16 bytes.
func parseBuild(b []byte) (version, module string) {
	const header, inline, mark = 32, 2, 16
	if len(b) < header || !bytes.HasPrefix(b, []byte("\xff Go buildinf:")) {
		return "", ""
	}
	module = "go"
	if b[15]&inline == 0 {
		return "", module
	}
	text, rest := takeString(b[header:])
	version = takeVersion(bytes.TrimPrefix(bytes.TrimPrefix(text, []byte("devel ")), []byte("go")))
	text, _ = takeString(rest)
	if len(text) < mark {
		return version, module
	}
	for line := range bytes.Lines(text[mark:]) {
		key, value, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte("\t"))
		switch string(key) {
		case "path":
			module = cmp.Or(cut(value, maxText), module)
		case "mod":
			value, _, _ = bytes.Cut(value, []byte("\t"))
			return version, cmp.Or(cut(value, maxText), module)
		case "dep", "build": // the module comes before these
			return version, module
		}
	}
	return version, module
}

// takeString takes a string with its length off b, or what is there of it.
func takeString(b []byte) (text, rest []byte) {
	n, size := binary.Uvarint(b)
	if size <= 0 {
		return nil, nil
	}
	b = b[size:]
	if n > uint64(len(b)) {
		return b, nil
	}
	return b[:n], b[n:]
}
