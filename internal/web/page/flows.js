// The table of flows: sorted, filtered, and each row's details.
import {line} from "./charts.js";
import {attr, el, keyed, setCell, show, text} from "./dom.js";
import {count, duration, percent, plural, rate} from "./format.js";
import {takenWords} from "./model.js";

const $ = (id) => document.getElementById(id);
const step = 25; // rows at a time: what matters comes first, and a table of a thousand is slow to draw

const first = (flow) => flow.processes[0]?.comm ?? "";
const down = (value) => (a, b) => (value(b) ?? -1) - (value(a) ?? -1);
const byName = (value) => (a, b) => (value(a) === "") - (value(b) === "") || value(a).localeCompare(value(b));

// columns in their order; compare puts first what is worst, or first by name.
const columns = [
  {id: "flow", name: "Flow", names: true, compare: byName((r) => `${r.flow.remote}:${r.flow.port}`)},
  {id: "service", name: "Service", names: true, compare: byName((r) => r.flow.service)},
  {id: "process", name: "Process", names: true, compare: byName((r) => first(r.flow))},
  {id: "ports", name: "Ports taken", compare: down((r) => r.taken)},
  {id: "time_wait", name: "TIME_WAIT", compare: down((r) => r.flow.states.time_wait)},
  {id: "close_wait", name: "CLOSE_WAIT", compare: down((r) => r.flow.states.close_wait)},
  {id: "established", name: "Open", compare: down((r) => r.flow.states.established)},
  {id: "closes", name: "Closes/s", compare: down((r) => r.flow.close_rate)},
  {id: "lifetime", name: "Lifetime", compare: (a, b) => (a.flow.mean_lifetime_seconds ?? Infinity) - (b.flow.mean_lifetime_seconds ?? Infinity) || 0},
];

// flowTable returns what updates the table with the rows of a report.
export function flowTable() {
  const state = {rows: [], many: false, omitted: 0, sort: "ports", turned: false, shown: step, open: new Set()};
  const head = $("flow-head");
  for (const c of columns) {
    const button = el("button", {type: "button", "data-sort": c.id}, c.name);
    button.addEventListener("click", () => {
      state.turned = state.sort === c.id && !state.turned;
      state.sort = c.id;
      render(state);
    });
    head.append(el("th", {scope: "col", class: c.names ? `c-${c.id}` : `num c-${c.id}`}, button));
  }
  for (const id of ["filter", "side"]) $(id).addEventListener("input", () => {
    state.shown = step;
    render(state);
    text($("flow-said"), $("flow-none").hidden ? $("flow-count").textContent : $("flow-none").textContent);
  });
  $("flow-more").addEventListener("click", () => {
    state.shown += step;
    render(state);
  });
  const linked = /^#flow-([0-9a-f]{16})$/.exec(location.hash);
  if (linked) state.open.add(linked[1]);
  return (rows, many, omitted) => {
    Object.assign(state, {rows, many, omitted});
    render(state);
  };
}

function render(state) {
  const column = columns.find((c) => c.id === state.sort);
  const turn = state.turned ? -1 : 1;
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean), side = $("side").value;
  const found = state.rows.filter((r) => (!side || r.flow.side === side) && words.every((w) => r.search.includes(w)));
  found.sort((a, b) => turn * column.compare(a, b) || b.flow.states.time_wait - a.flow.states.time_wait || (a.id < b.id ? -1 : 1));
  columns.forEach((c, i) => {
    const up = c.names || c.id === "lifetime";
    attr($("flow-head").children[i], "aria-sort", c.id !== state.sort ? null : up !== state.turned ? "ascending" : "descending");
  });
  const items = [];
  for (const row of found.slice(0, state.shown)) {
    items.push({key: row.id, row});
    if (state.open.has(row.id)) items.push({key: `${row.id}-more`, row, more: true});
  }
  keyed($("flow-rows"), items, (i) => i.key, (i) => (i.more ? details() : tableRow(i.row.id, state)), (node, i) => node.update(i.row, state));
  const rest = found.length - Math.min(found.length, state.shown);
  show($("flow-more"), rest > 0);
  text($("flow-more"), `Show ${Math.min(rest, step)} more of ${count(rest)}`);
  const omitted = state.omitted ? `; ${count(state.omitted)} more are not listed` : "";
  text($("flow-count"), found.length === state.rows.length ? `${plural(found.length, "flow")}${omitted}` : `${count(found.length)} of ${plural(state.rows.length, "flow")}`);
  show($("flow-none"), found.length === 0);
  text($("flow-none"), state.rows.length ? "No flow matches." : "No flows: no connection is open, or has been in the last minute.");
}

function tableRow(id, state) {
  const near = el("span", {class: "near"}), far = el("span"), ends = el("span", {class: "ends"}, near, far);
  // What a narrow screen has no column for stands below the ends.
  const where = el("span"), service = el("span", {class: "for-service"}), process = el("span", {class: "for-process"});
  const open = el("button", {type: "button", class: "row", "aria-expanded": "false", "aria-controls": `flow-${id}`}, ends, el("span", {class: "where"}, where, service, process));
  const fillBar = el("span", {class: "fill"}), share = el("span", {class: "share"});
  const bar = el("span", {class: "bar", "aria-hidden": "true"}, fillBar);
  const cells = columns.map((c) => el(c.id === "flow" ? "th" : "td", {class: c.names ? `c-${c.id}` : `num c-${c.id}`, scope: c.id === "flow" ? "row" : null}));
  cells[0].append(open);
  cells[3].append(bar, share);
  open.addEventListener("click", () => {
    if (!state.open.delete(id)) state.open.add(id);
    render(state);
  });
  const node = el("tr", {class: "flow", "data-flow": id}, ...cells);
  node.update = ({flow, namespace, taken}) => {
    const [here, there] = endsOf(flow);
    text(near, here);
    text(far, there);
    text(service, flow.service && ` · ${flow.service}`);
    text(process, processesOf(flow) && ` · ${processesOf(flow)}`);
    text(where, [flow.side, flow.device, state.many ? namespace.name : ""].filter(Boolean).join(" · "));
    attr(open, "aria-expanded", String(state.open.has(id)));
    text(cells[1], flow.service);
    text(cells[2], processesOf(flow));
    show(bar, taken !== null);
    setCell(share, taken === null ? "" : takenWords(flow, taken));
    fillBar.style.width = `${Math.min(100, (taken ?? 0) * 100)}%`;
    attr(bar, "data-level", taken === null ? null : taken > 0.8 ? "critical" : taken > 0.5 ? "warning" : null);
    text(cells[4], count(flow.states.time_wait));
    text(cells[5], count(flow.states.close_wait));
    text(cells[6], count(flow.states.established));
    setCell(cells[7], flow.close_rate === null ? null : (flow.close_rate_at_least ? "≥" : "") + rate(flow.close_rate));
    setCell(cells[8], flow.mean_lifetime_seconds === null ? null : duration(flow.mean_lifetime_seconds));
  };
  return node;
}

// endsOf is a flow in two parts: the end that is here, and the rest.
function endsOf(f) {
  const v6 = (address) => (address.includes(":") && !address.includes("/") ? `[${address}]` : address);
  if (f.side === "server") return [v6(f.local), `:${f.port} ← ${f.remote}`];
  return [f.local ? `${f.local} → ` : "", `${v6(f.remote)}:${f.port}`];
}

function processesOf(f) {
  if (!f.processes.length) return "";
  const more = f.processes.length - 1;
  return f.processes[0].comm + (more ? ` +${more}` : "");
}

// searchText is what the filter looks at.
export function searchText(namespace, f) {
  return [namespace.name, f.side, f.device, endsOf(f).join(""), f.service, ...f.processes.flatMap((p) => [p.comm, p.exe, String(p.pid)])].join("\n").toLowerCase();
}

// details is the row below a flow's.
function details() {
  const facts = el("dl", {class: "facts"}), minute = el("figure"), past = el("figure"), programs = el("table", {class: "small"});
  const rows = el("tbody");
  programs.append(el("caption", {}, "Processes"), el("thead", {}, el("tr", {}, ...["Program", "Processes", "Sockets", "Share", "Known by", "Cgroup"].map((h) => el("th", {scope: "col"}, h)))), rows);
  const attributed = el("p", {class: "note"}), ask = el("button", {type: "button", class: "quiet"}, "Show 4-tuples"), tuples = el("div");
  const wide = el("div", {class: "scroll", role: "region", "aria-label": "Processes", tabindex: 0}, programs);
  const cell = el("td", {colspan: columns.length}, el("div", {class: "detail"}, el("div", {class: "pair"}, facts, minute, past), wide, attributed, ask, tuples));
  const node = el("tr", {class: "more"}, cell);
  let current = null, asked = null;
  ask.addEventListener("click", () => list4Tuples(current, tuples, ask));
  node.update = (row, state) => {
    current = row;
    node.id = `flow-${row.id}`;
    const f = row.flow;
    facet(facts, factsOf(f, row.namespace, state.many));
    figure(minute, "Closes, the last minute", f.opened_per_second, f.opened_per_second ? `at most ${count(Math.max(...f.opened_per_second))} a second` : "none");
    show(wide, f.processes.length > 0);
    keyed(rows, f.processes, (p) => `${p.comm}\n${p.exe}\n${p.cgroup}`, () => el("tr", {}, el("th", {scope: "row"}), ...Array.from({length: 5}, () => el("td"))), (tr, p) => {
      const c = tr.cells;
      text(c[0], p.comm + (p.runtime && p.runtime !== p.comm ? ` (${p.runtime}${p.runtime_version ? " " + p.runtime_version : ""})` : ""));
      attr(c[0], "title", p.exe);
      text(c[1], p.count > 1 ? `${count(p.count)}: ${(p.pids ?? [p.pid]).slice(0, 6).join(", ")}${p.count > 6 ? ", …" : ""}` : String(p.pid));
      text(c[2], count(p.sockets));
      text(c[3], p.by === "listener" ? "" : percent(p.share));
      text(c[4], {inode: "its open sockets", cookie: "closed ones seen open", listener: "listens on the port"}[p.by] ?? p.by);
      text(c[5], p.cgroup);
    });
    text(attributed, f.attributed === null ? "Whose sockets these are was not looked for." : `The process of ${percent(f.attributed)} of the sockets is known.`);
    if (asked !== row.flow) {
      asked = row.flow;
      showPast(past, row.id);
    }
  };
  return node;
}

function facet(list, pairs) {
  keyed(list, pairs, ([name]) => name, () => el("div", {}, el("dt"), el("dd")), (node, [name, value]) => {
    text(node.children[0], name);
    text(node.children[1], value);
  });
}

function factsOf(f, namespace, many) {
  const pairs = [];
  if (many) pairs.push(["Namespace", namespace.name]);
  const states = Object.entries(f.states).filter(([, n]) => n > 0).map(([name, n]) => `${count(n)} ${name.toUpperCase()}`);
  pairs.push(["Sockets", states.join(", ") || "none"]);
  if (f.missed_at_most) pairs.push(["Counted from its discovery", `at most ${count(f.missed_at_most)} were missed`]);
  const p = f.ports;
  if (p) {
    pairs.push(["Ports free", `${p.at_most ? "at most " : ""}${count(p.free)} of ${count(p.range - p.reserved)}`]);
    pairs.push(["Taken by this flow", count(p.used) + (p.reusable ? `, of which connect() may reuse ${count(p.reusable)}` : "")]);
    if (p.blocked) pairs.push(["Blocked by binds", count(p.blocked)]);
    if (p.free > 0 && p.seconds_to_exhaustion !== null) pairs.push(["None left in", duration(p.seconds_to_exhaustion)]);
  }
  if (f.close_rate !== null) {
    const over = f.close_rate_seconds ? `, mean of ${duration(f.close_rate_seconds)}` : "";
    pairs.push(["Closes", `${f.close_rate_at_least || f.survivors_only ? "at least " : ""}${rate(f.close_rate)} a second${over}${f.survivors_only ? "; tcp_tw_reuse recycles them" : ""}`]);
  }
  if (f.mean_lifetime_seconds !== null) pairs.push(["A connection lives", duration(f.mean_lifetime_seconds)]);
  if (f.long_lived !== null) pairs.push(["Kept open", plural(f.long_lived, "connection")]);
  const w = f.close_wait;
  if (w.sockets) {
    pairs.push(["CLOSE_WAIT", [plural(w.sockets, "socket"), w.oldest_seconds === null ? "" : `the oldest for ${w.oldest_at_least ? "at least " : ""}${duration(w.oldest_seconds)}`,
      w.eof_read ? `${count(w.eof_read)} read to the end` : "", w.unread ? `${count(w.unread)} unread` : "", w.unaccepted ? `${count(w.unaccepted)} not accepted` : ""].filter(Boolean).join(", ")]);
  }
  return pairs;
}

function figure(node, title, values, words) {
  show(node, Boolean(values?.length));
  if (!values?.length) return;
  node.replaceChildren(el("figcaption", {}, title, " ", el("span", {}, words)), line(values));
}

// showPast draws a flow's TIME_WAIT over the reports that are kept.
async function showPast(node, id) {
  try {
    const reply = await fetch(`api/v1/flows/${id}`);
    if (!reply.ok) return;
    const {history} = await reply.json();
    const values = history.map((m) => m.states.time_wait);
    if (values.length > 1) figure(node, "TIME_WAIT, in the reports kept", values, `from ${count(values[0])} to ${count(values.at(-1))}`);
  } catch { /* the banner says that nobody answers */ }
}

async function list4Tuples({flow, namespace}, place, button) {
  const query = new URLSearchParams({port: flow.port, limit: 200});
  if (flow.remote) query.set("remote", flow.remote.replace(/%.*$/, ""));
  button.disabled = true;
  let words = "", rows = [];
  try {
    const reply = await fetch(`api/v1/sockets?${query}`);
    const answer = await reply.json();
    if (!reply.ok) throw new Error(answer.error);
    // Both ends of a connection over loopback have that port, and the flow one.
    rows = answer.sockets.filter((s) => s.remote && (flow.side === "server" ? s.local : s.remote).endsWith(`:${flow.port}`));
    const whose = namespace.kind === "host" || namespace.kind === "self" ? "this host" : "the namespace that twwatch runs in";
    words = [`${plural(rows.length, "socket")} of ${whose}`, answer.truncated && "there are more", answer.lost && `not known: ${answer.lost}`].filter(Boolean).join("; ");
  } catch (error) {
    words = `The sockets could not be listed: ${error.message}`;
  }
  button.disabled = false;
  text(button, "List them again");
  place.replaceChildren(el("p", {class: "note", role: "status"}, words));
  if (!rows.length) return;
  const body = el("tbody");
  for (const s of rows) {
    const age = s.age_seconds === null ? null : (s.age_at_least ? "≥" : "") + duration(s.age_seconds);
    const cells = [s.local, s.remote, s.state.toUpperCase(), age, s.comm ? `${s.comm} (${s.pid})` : ""].map((v) => el("td"));
    [s.local, s.remote, s.state.toUpperCase(), age, s.comm ? `${s.comm} (${s.pid})` : ""].forEach((v, i) => setCell(cells[i], v));
    body.append(el("tr", {}, ...cells));
  }
  place.append(el("div", {class: "scroll tuples", role: "region", "aria-label": "4-tuples", tabindex: 0}, el("table", {class: "small mono"},
    el("thead", {}, el("tr", {}, ...["Local", "Remote", "State", "Age", "Process"].map((h) => el("th", {scope: "col"}, h)))), body)));
}
