// The connection to twwatch: reports as they come, and whether they still do.

// follow calls report with each report, and link with what is known of the
// connection: whether it is there (ok), whether twwatch makes no more reports
// (stale), the age of the newest in seconds, why it ended (reason), that there
// will be no more reports, as at the end of a recording (ended), and until when
// nothing is to be said of it, since it is being made (quietUntil).
export function follow({report, link}) {
  let source = null, timer = 0, wait = 1000, heard = 0, hidden = 0, newest = "";
  const state = {ok: false, stale: false, ended: false, reason: "", quietUntil: performance.now() + 2000};
  const tell = (change) => link(Object.assign(state, change));

  const open = () => {
    clearTimeout(timer);
    source?.close();
    heard = performance.now();
    source = new EventSource("api/v1/stream");
    const mine = source;
    source.addEventListener("report", (event) => {
      heard = performance.now();
      wait = 1000;
      let data;
      try {
        data = JSON.parse(event.data);
      } catch {
        tell({ok: true, reason: "it sent a report that can't be read"});
        return;
      }
      tell({ok: true, stale: false, ended: state.ended && data.time === newest, reason: ""});
      newest = data.time;
      report(data);
    });
    source.addEventListener("beat", (event) => {
      heard = performance.now();
      const beat = JSON.parse(event.data);
      tell({ok: true, stale: beat.stale, age: beat.age_seconds, reason: ""});
      delete state.age;
    });
    source.addEventListener("end", (event) => {
      if (mine !== source) return;
      let reason = "";
      try {
        reason = JSON.parse(event.data).reason;
      } catch { /* no reason then */ }
      const ended = reason.includes("source has ended"); // as the hub says it
      state.ended = ended;
      again(reason, ended ? 30000 : 0);
    });
    source.addEventListener("error", () => {
      if (mine !== source) return;
      // A browser gives up by itself only where something else answered.
      again(source.readyState === EventSource.CLOSED ? "it answers, and opens no stream: too many may be open" : "");
    });
  };
  const again = (reason, least = 0) => {
    source.close();
    source = null;
    tell({ok: false, reason});
    clearTimeout(timer);
    timer = setTimeout(open, Math.max(least, wait));
    wait = Math.min(wait * 2, 15000);
  };
  // A host that is gone sends no more beats, and no end either.
  setInterval(() => {
    if (source && performance.now() - heard > 25000) again("nothing has come for 25 s");
  }, 1000);
  // A page that nobody sees needs no reports: browsers allow few connections.
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hidden);
    if (!document.hidden) {
      if (!source) {
        tell({quietUntil: performance.now() + 2000});
        open();
      }
    } else {
      hidden = setTimeout(() => {
        clearTimeout(timer);
        source?.close();
        source = null;
      }, 60000);
    }
  });
  open();
}
