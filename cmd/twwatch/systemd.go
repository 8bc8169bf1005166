package main

import (
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notify tells systemd, if it asked to be told (NOTIFY_SOCKET). Failing to is
// no reason to stop serving.
func (s *server) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.logger.Warn("Telling systemd failed", "state", state, "err", err)
	}
}

// reloadingState needs the clock, so that systemd can tell one reload from the
// next (Type=notify-reload).
func reloadingState() string {
	return daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec()
}

// watchdogTicks ticks twice in each period of systemd's watchdog; without one,
// never.
func watchdogTicks(s *server) *time.Ticker {
	period, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.logger.Warn("systemd's watchdog is not served", "err", err)
	}
	if err != nil || period <= 0 {
		t := time.NewTicker(time.Hour)
		t.Stop()
		return t
	}
	return time.NewTicker(max(period/2, time.Millisecond))
}
