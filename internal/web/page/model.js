// What is read out of reports. Nothing here touches the page.
import {percent} from "./format.js";

// states are the TCP states, and where each is explained.
export const states = {
  listen: "listen", syn_recv: "syn-recv", syn_sent: "syn-sent", established: "established",
  fin_wait1: "fin-wait-1", fin_wait2: "fin-wait-2", closing: "closing", time_wait: "time-wait",
  close_wait: "close-wait", last_ack: "last-ack",
};

// chosen are the namespaces that are looked at: all, or the one of that key.
export function chosen(report, key) {
  const all = report.namespaces;
  const one = all.filter((n) => namespaceKey(n) === key);
  return key && one.length ? one : all;
}

export function namespaceKey(n) {
  return `${n.inode}/${n.cookie ?? 0}`;
}

export function sumStates(namespaces) {
  const sum = {};
  for (const name of Object.keys(states)) sum[name] = 0;
  for (const n of namespaces) for (const name of Object.keys(sum)) sum[name] += n.states[name] ?? 0;
  return sum;
}

// closeRate is what ended in TIME_WAIT per second; null: not known. floor: it may
// be more.
export function closeRate(namespaces) {
  let rate = null, floor = false;
  for (const n of namespaces) {
    if (n.time_wait.close_rate === null) {
      floor = true;
      continue;
    }
    rate = (rate ?? 0) + n.time_wait.close_rate;
    floor ||= n.time_wait.opened_per_second_floor && n.time_wait.close_rate_by !== "counter";
  }
  return {rate, floor};
}

// stateRates tells per state what enters it per second (in), what leaves it for
// ESTABLISHED (out), or by how much its count changes (net); nothing where that
// isn't known. The kernel counts a passive opening (PassiveOpens) once its
// handshake is complete, and no SYN that comes to nothing.
export function stateRates(before, now) {
  const rates = {};
  const {rate, floor} = closeRate(now);
  if (rate !== null) rates.time_wait = {in: rate, floor};
  const earlier = new Map((before ?? []).map((n) => [namespaceKey(n), n]));
  const pairs = now.map((n) => [earlier.get(namespaceKey(n)), n]);
  if (!pairs.length || pairs.some(([b, n]) => !b || !(seconds(b, n) > 0))) return rates;
  const sum = (value) => pairs.reduce((total, [b, n]) => total + (value(n) - value(b)) / seconds(b, n), 0);
  for (const name of Object.keys(states)) {
    if (name !== "time_wait") rates[name] = {net: sum((n) => n.states[name] ?? 0)};
  }
  for (const [name, way, counter] of [["syn_sent", "in", "ActiveOpens"], ["syn_recv", "out", "PassiveOpens"]]) {
    if (pairs.every(([b, n]) => counter in b.counters && n.counters[counter] >= b.counters[counter])) {
      rates[name] = {[way]: sum((n) => n.counters[counter])};
    }
  }
  return rates;
}

function seconds(before, now) {
  return (Date.parse(now.sampled_at) - Date.parse(before.sampled_at)) / 1000;
}

// timeline is the last minute's closes, summed; oldest second first.
export function timeline(namespaces) {
  const sum = new Array(60).fill(0);
  let floor = false;
  for (const n of namespaces) {
    const one = n.time_wait.opened_per_second;
    one.forEach((v, i) => { if (sum.length - one.length + i >= 0) sum[sum.length - one.length + i] += v; });
    floor ||= n.time_wait.opened_per_second_floor;
  }
  return {sum, floor};
}

// taken is the share of the ports that connect() can't get now; null for what
// is no client flow.
export function taken(flow) {
  const p = flow.ports;
  return p && p.range > p.reserved ? 1 - p.free / (p.range - p.reserved) : null;
}

// takenWords writes it; where more may be taken than is known, as at least so
// much.
export function takenWords(flow, share) {
  if (!flow.ports.at_most) return percent(share);
  return share > 0 && share < 0.01 ? `≥${(share * 100).toFixed(1)} %` : `≥${percent(share)}`;
}

// flowsOf lists all flows with their namespace and id.
export function flowsOf(namespaces) {
  const rows = [];
  for (const n of namespaces) {
    for (const flow of n.flows) {
      rows.push({namespace: n, flow, id: flowID(n, flow), taken: taken(flow)});
    }
  }
  return rows;
}

export function tightest(rows) {
  let best = null;
  for (const row of rows) if (row.taken !== null && (best === null || row.taken > best.taken)) best = row;
  return best;
}

// flowID is the id by which /api/v1/flows/{id} knows a flow: FNV-1a, 64 bits.
const ids = new WeakMap();
export function flowID(n, flow) {
  let id = ids.get(flow);
  if (id) return id;
  const text = [n.name, n.inode, flow.side, flow.device, flow.local, flow.remote, flow.port].map((part) => `${part}\0`).join("");
  let high = 0xcbf29ce4, low = 0x84222325; // of the prime 2⁴⁰ + 0x1b3
  for (const byte of new TextEncoder().encode(text)) {
    low = (low ^ byte) >>> 0;
    const product = low * 0x1b3;
    high = (Math.imul(high, 0x1b3) + (low << 8) + Math.floor(product / 0x100000000)) >>> 0;
    low = product >>> 0;
  }
  id = high.toString(16).padStart(8, "0") + low.toString(16).padStart(8, "0");
  ids.set(flow, id);
  return id;
}

// families puts findings under the one that they follow from.
export function families(findings) {
  const roots = [], follow = new Map();
  const same = (a, b) => ["remote", "port", "local"].every((k) => (a.subject[k] ?? "") === (b.subject[k] ?? ""));
  for (const f of findings) {
    const causes = f.because_of
      ? findings.filter((c) => c !== f && c.id === f.because_of && c.namespace === f.namespace && !c.because_of) : [];
    const cause = causes.find((c) => same(c, f)) ?? causes[0];
    if (!cause) roots.push(f);
    else follow.set(cause, [...(follow.get(cause) ?? []), f]);
  }
  return {roots, follow};
}

export function findingKey(f) {
  const s = f.subject;
  return JSON.stringify([f.id, f.namespace, s.side, s.device, s.local, s.remote, s.port, s.service, s.process]);
}

export const severities = ["info", "warning", "critical"];

// statesOf names the states that a finding is about, so that the diagram can
// mark them.
export function statesOf(finding) {
  const id = finding.id;
  if (finding.severity === "info") return [];
  if (id.startsWith("close-wait")) return ["close_wait"];
  if (id.startsWith("time-wait") || id.startsWith("ephemeral-ports")) return ["time_wait"];
  return {
    "short-connections-client": ["time_wait"], "short-connections-server": ["time_wait"],
    "half-open-flood": ["syn_recv"], "accept-queue-overflow": ["listen"], "fin-wait-pileup": ["fin_wait1", "fin_wait2"],
    "last-ack-pileup": ["last_ack"], "snat-exhaustion": ["syn_sent"],
  }[id] ?? [];
}

// closeWaitKind says what is left to do for a CLOSE_WAIT.
export function closeWaitKind(c) {
  if (c.inode === 0) return "accept() it: no program has taken it yet";
  if (c.recv_q === 0) return "close() it: the end was read";
  if (c.recv_q === 1) return "read the end, then close()";
  return "read what is left, then close()";
}
