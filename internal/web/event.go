package web

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"math"
	"net/http"
	"sync"
	"time"
)

// An event is a server-sent event as it goes over the wire. It is immutable but
// for the packed form, made on demand: a report's is written once, packed once,
// and then the same bytes for all streams.
type event struct {
	text  []byte
	large bool // worth packing
	once  sync.Once
	block []byte // text as whole deflate blocks that refer to nothing before
}

// newEvent writes an event. data is one line.
func newEvent(kind, id string, data []byte, large bool) *event {
	b := make([]byte, 0, len(data)+64)
	if id != "" {
		b = append(append(append(b, "id: "...), id...), '\n')
	}
	b = append(append(append(b, "event: "...), kind...), '\n')
	b = append(append(append(b, "data: "...), bytes.TrimRight(data, "\n")...), "\n\n"...)
	return &event{text: b, large: large}
}

// asEvent is the report as an event, made once.
func (e *encoded) asEvent() *event {
	e.onceEvent.Do(func() { e.event = newEvent("report", e.tag, e.body, true) })
	return e.event
}

// packed returns deflate blocks (RFC 1951) that end at a byte's edge and aren't
// the last. Blocks that refer to nothing before them can follow any others, so
// that a stream's packing needs no memory of its own.
func (e *event) packed() []byte {
	e.once.Do(func() {
		if !e.large && len(e.text) <= math.MaxUint16 {
			size := uint16(len(e.text))
			e.block = append(binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16([]byte{0}, size), ^size), e.text...)
			e.block = append(e.block, 0, 0, 0, 0xff, 0xff) // as a flush ends, at which readers look up
			return
		}
		var b bytes.Buffer
		z, err := flate.NewWriter(&b, flate.DefaultCompression)
		if err != nil { // only of a level that there isn't
			return
		}
		_, _ = z.Write(e.text) // a bytes.Buffer takes everything
		_ = z.Flush()
		e.block = b.Bytes()
	})
	return e.block
}

// An eventWriter writes the events of one stream.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	pack    bool
	begun   bool
	sum     uint32 // CRC of what was packed
	size    uint32
}

func newEventWriter(w http.ResponseWriter, pack bool) *eventWriter {
	out := &eventWriter{w: w, control: http.NewResponseController(w), pack: pack}
	if pack {
		w.Header().Set("Content-Encoding", "gzip")
	}
	// The server's limit on reading a request would end the stream. Of a
	// recorder in a test nothing can be set.
	_ = out.control.SetReadDeadline(time.Time{})
	return out
}

// send writes one event. A reader that doesn't take it in time is an error.
func (o *eventWriter) send(e *event) error {
	_ = o.control.SetWriteDeadline(time.Now().Add(takeWithin)) // as above
	bytes := e.text
	if o.pack {
		if !o.begun {
			// The header of RFC 1952, for an unknown time and system.
			if _, err := o.w.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}); err != nil {
				return err
			}
		}
		o.sum = crc32.Update(o.sum, crc32.IEEETable, e.text)
		o.size += uint32(len(e.text)) // modulo 2³², as the trailer wants it
		bytes = e.packed()
	}
	o.begun = true
	if _, err := o.w.Write(bytes); err != nil {
		return err
	}
	return o.control.Flush()
}

// end tells why the stream ends.
func (o *eventWriter) end(reason error) error {
	text := "the stream was stopped"
	if reason != nil {
		text = reason.Error()
	}
	if err := o.send(eventOf("end", endData{Reason: text})); err != nil || !o.pack {
		return err
	}
	last := []byte{1, 0, 0, 0xff, 0xff} // an empty block, the last
	last = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(last, o.sum), o.size)
	_, err := o.w.Write(last)
	return err
}
