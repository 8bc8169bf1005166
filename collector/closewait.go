package collector

import (
	"context"
	"time"

	"github.com/twwatch/twwatch/collector/flow"
	"github.com/twwatch/twwatch/collector/ledger"
	"github.com/twwatch/twwatch/inetdiag"
)

// finOf bounds when the peer's FIN came to a CLOSE_WAIT socket whose tcp_info
// was filled in between from and to, on inetdiag.Now's clock.
//
// No field tells it. The FIN carries an ACK, and sets the time of the last one
// (rcv_tstamp: tcp_ack, net/ipv4/tcp_input.c); so does each ACK after it, of
// data that we still send and of our keepalive and zero-window probes. After
// it no data are taken, so those received last, or else the handshake, came
// before it (icsk_ack.lrcvtime: tcp_event_data_recv, and tcp_finish_connect
// and tcp_create_openreq_child for a socket that got none). Hence last_ack_recv
// ≤ age ≤ last_data_recv. A quiet socket's age is last_ack_recv, but whether it
// was quiet one look can't tell: keepalive probes carry no data and leave
// last_data_sent alone. So an age is exact only where both bounds agree. Each
// bound is whole ticks of the kernel's clock, 10 ms at most. An ACK that overtook
// the FIN on the way hides the FIN's own, and puts last_ack_recv too early by as
// much.
func finOf(info *inetdiag.Info, from, to int64) ledger.Fin {
	atLeast, atMost := closeWaitAge(info)
	return ledger.Fin{Earliest: from - int64(atMost), Latest: to - int64(atLeast)}
}

// closeWaitAge is the age at the look itself.
func closeWaitAge(info *inetdiag.Info) (atLeast, atMost time.Duration) {
	return min(info.LastAckRecv, info.LastDataRecv), info.LastDataRecv
}

// askFin asks for one socket's tcp_info. inetdiag.ErrNotFound: it was closed.
func (p *pass) askFin(ctx context.Context, id inetdiag.ID) (ledger.Fin, error) {
	from := inetdiag.Now()
	info, err := p.conn.Lookup(ctx, id)
	if err != nil {
		return ledger.Fin{}, err
	}
	return p.ledger.Learn(id.Cookie(), finOf(&info, from, inetdiag.Now())), nil
}

// ageOf is the age when the pass started, in whole ms.
func (p *pass) ageOf(f ledger.Fin) flow.Age {
	return flow.Age{AtLeast: max(0, p.start-f.Latest) / 1e6, AtMost: (max(0, p.start-f.Earliest) + 1e6 - 1) / 1e6}
}
