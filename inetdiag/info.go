package inetdiag

import (
	"encoding/binary"
	"time"
)

// Info is the part of struct tcp_info (include/uapi/linux/tcp.h) that tells
// how a connection fares. The structure has grown with the kernel: fields
// behind a Has… flag are meaningful only where it is true.
//
// LastAckSent is not here: the kernel has the field and never fills it.
type Info struct {
	State       State
	Retransmits uint8 // timeouts in a row for the segment in flight
	Probes      uint8 // zero-window or keepalive probes unanswered
	Backoff     uint8

	RTO         time.Duration
	Unacked     uint32 // segments in flight; for LISTEN the accept queue
	Lost        uint32 // segments
	Retrans     uint32 // segments retransmitted and in flight
	TotalRetran uint32 // segments retransmitted ever

	LastDataSent time.Duration // since data was last sent
	LastDataRecv time.Duration // since data was last received; its FIN does not count
	LastAckRecv  time.Duration // since an ACK was last received; the FIN's counts

	PathMTU uint32 // bytes
	RTT     time.Duration
	RTTVar  time.Duration
	SndCwnd uint32 // segments
	SndMSS  uint32 // bytes
	RcvMSS  uint32 // bytes

	HasBytes      bool   // Linux 4.1
	BytesAcked    uint64 // bytes sent and acknowledged
	BytesReceived uint64

	HasSegments bool // Linux 4.2
	SegmentsOut uint32
	SegmentsIn  uint32

	HasMinRTT       bool // Linux 4.6
	NotSentBytes    uint32
	MinRTT          time.Duration
	DataSegmentsIn  uint32
	DataSegmentsOut uint32

	HasBytesSent bool // Linux 4.19
	BytesSent    uint64
	BytesRetrans uint64
}

// infoSize is tcp_info up to tcpi_total_retrans: every kernel since 2.6.
const infoSize = 104

// parseInfo decodes a tcp_info of any age. Fewer than infoSize bytes are none.
func parseInfo(b []byte) (Info, bool) {
	if len(b) < infoSize {
		return Info{}, false
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	u64 := func(at int) uint64 { return binary.NativeEndian.Uint64(b[at:]) }
	us := func(at int) time.Duration { return time.Duration(u32(at)) * time.Microsecond }
	ms := func(at int) time.Duration { return time.Duration(u32(at)) * time.Millisecond }

	i := Info{
		State:        State(b[0]),
		Retransmits:  b[2],
		Probes:       b[3],
		Backoff:      b[4],
		RTO:          us(8),
		SndMSS:       u32(16),
		RcvMSS:       u32(20),
		Unacked:      u32(24),
		Lost:         u32(32),
		Retrans:      u32(36),
		LastDataSent: ms(44),
		LastDataRecv: ms(52),
		LastAckRecv:  ms(56),
		PathMTU:      u32(60),
		RTT:          us(68),
		RTTVar:       us(72),
		SndCwnd:      u32(80),
		TotalRetran:  u32(100),
	}
	if len(b) >= 136 {
		i.HasBytes, i.BytesAcked, i.BytesReceived = true, u64(120), u64(128)
	}
	if len(b) >= 144 {
		i.HasSegments, i.SegmentsOut, i.SegmentsIn = true, u32(136), u32(140)
	}
	if len(b) >= 160 {
		i.HasMinRTT, i.NotSentBytes, i.MinRTT = true, u32(144), us(148)
		i.DataSegmentsIn, i.DataSegmentsOut = u32(152), u32(156)
	}
	if len(b) >= 216 {
		i.HasBytesSent, i.BytesSent, i.BytesRetrans = true, u64(200), u64(208)
	}
	return i, true
}
