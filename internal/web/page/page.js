// The page: takes reports as they come, and shows them.
import {bars, line, strip} from "./charts.js";
import {diagram} from "./diagram.js";
import {attr, el, keyed, setCell, show, text, visible} from "./dom.js";
import {renderFindings} from "./findings.js";
import {flowTable, searchText} from "./flows.js";
import {clock, count, duration, percent, plural, rate} from "./format.js";
import {chosen, closeRate, closeWaitKind, flowsOf, namespaceKey, stateRates, sumStates, takenWords, tightest, timeline} from "./model.js";
import {follow} from "./stream.js";

const $ = (id) => document.getElementById(id);
const drawDiagram = diagram($("diagram")), drawCloses = bars($("closes-plot")), drawFlows = flowTable();

let report = null, before = null;
let looked = 0; // when the newest report was made, by this page's clock
let link = {ok: false, stale: false, reason: "", quietUntil: Infinity}, lostAt = null;

function take(next) {
  if (report && next.time !== report.time) before = report.boot_id === next.boot_id && report.host === next.host ? report : null;
  report = next;
  looked = performance.now();
  render();
  renderHistory();
}

function render() {
  if (!report) return;
  const namespaces = pickNamespaces();
  text($("host"), report.host);
  text($("kernel"), `Linux ${report.kernel}`);
  text($("version"), `twwatch ${report.version}`);
  document.title = visible(`${report.verdict === "healthy" ? "" : "● "}${report.host}: ${report.verdict}`);
  renderVerdict(namespaces);
  renderFindings(report);
  drawDiagram({
    counts: sumStates(namespaces), rates: stateRates(before && chosen(before, $("namespace").value), namespaces),
    findings: report.findings.filter((f) => namespaces.some((n) => n.name === f.namespace)),
  });
  renderCloses(namespaces);
  const rows = flowsOf(namespaces);
  for (const row of rows) row.search = searchText(row.namespace, row.flow);
  drawFlows(rows, namespaces.length > 1, namespaces.reduce((sum, n) => sum + n.omitted.flows, 0));
  renderCloseWaits(namespaces);
  renderLink();
}

function pickNamespaces() {
  const select = $("namespace"), all = report.namespaces;
  show($("pick"), all.length > 1);
  keyed(select, [{key: "", name: `all ${all.length}`}, ...all.map((n) => ({key: namespaceKey(n), name: n.name}))], (o) => o.key, (o) => el("option", {value: o.key}), (node, o) => text(node, o.name));
  return chosen(report, select.value);
}

function renderVerdict(namespaces) {
  const grave = report.findings.filter((f) => f.severity !== "info");
  const roots = grave.filter((f) => !f.because_of);
  const word = {healthy: "Healthy", warning: "Warning", critical: "Critical"}[report.verdict] ?? report.verdict;
  attr($("verdict-text"), "data-verdict", report.verdict);
  text($("verdict-text"), word);
  const lead = roots.find((f) => f.severity === report.verdict) ?? roots[0];
  const blind = report.incomplete.length ? " Not everything could be seen: see below." : "";
  text($("lede"), (lead ? lead.summary : "Nothing here needs you.") + blind);
  const states = sumStates(namespaces), {rate: closes, floor} = closeRate(namespaces);
  const tight = tightest(flowsOf(namespaces));
  const used = namespaces.reduce((sum, n) => sum + n.time_wait.buckets_used, 0);
  const ratios = namespaces.filter((n) => n.time_wait.buckets_limit).map((n) => [n.time_wait.buckets_used / n.time_wait.buckets_limit, n.time_wait.buckets_limit]);
  const fullest = ratios.reduce((a, b) => (a && a[0] >= b[0] ? a : b), null);
  const figures = [
    ["TIME_WAIT", count(states.time_wait), fullest ? `${percent(fullest[0])} of ${count(fullest[1])} buckets` : `${count(used)} buckets`],
    ["Closes per second", closes === null ? null : (floor ? "≥" : "") + rate(closes), floor ? "some are recycled" : "that end in TIME_WAIT here"],
    ["Tightest flow’s ports", tight ? takenWords(tight.flow, tight.taken) : null, tight ? `${tight.flow.ports.at_most ? "at most " : ""}${count(tight.flow.ports.free)} of ${count(tight.flow.ports.range - tight.flow.ports.reserved)} free to ${tight.flow.remote}:${tight.flow.port}` : "no client flow"],
    ["CLOSE_WAIT", count(states.close_wait), states.close_wait ? "waiting for a program here" : "none"],
    ["Open", count(states.established), plural(namespaces.reduce((sum, n) => sum + n.flows.length + n.omitted.flows, 0), "flow")],
  ];
  keyed($("figures"), figures, ([name]) => name, () => el("div", {}, el("dt"), el("dd", {class: "number"}), el("dd", {class: "more"})), (node, [name, value, more]) => {
    text(node.children[0], name);
    setCell(node.children[1], value);
    text(node.children[2], more);
  });
}

function renderCloses(namespaces) {
  const {sum, floor} = timeline(namespaces);
  const total = sum.reduce((a, b) => a + b, 0), most = Math.max(...sum);
  const at = 60 - sum.lastIndexOf(most);
  const words = total === 0 ? "No connection has entered TIME_WAIT here in the last minute."
    : `${floor ? "At least " : ""}${count(total)} connections entered TIME_WAIT here: ${rate(total / 60)} a second in the mean, ${count(most)} at most, ${at} s ago.${floor ? " tcp_tw_reuse recycles some: of older seconds only survivors are seen." : ""}`;
  text($("closes-note"), words);
  drawCloses(sum, words);
}

const fewCloseWaits = 12, mostCloseWaits = 100;
let shownCloseWaits = fewCloseWaits;

function renderCloseWaits(namespaces) {
  const rows = namespaces.flatMap((n) => (n.close_waits ?? []).map((c) => ({...c, namespace: n})));
  rows.sort((a, b) => (b.age_seconds ?? -1) - (a.age_seconds ?? -1));
  const total = sumStates(namespaces).close_wait;
  show($("cw-region"), rows.length > 0);
  const shown = rows.slice(0, shownCloseWaits), all = Math.min(rows.length, mostCloseWaits);
  show($("cw-more"), shown.length < all);
  text($("cw-more"), `Show ${count(all - shown.length)} more`);
  show($("cw-none"), rows.length === 0 || total > shown.length);
  text($("cw-none"), total === 0 ? "None." : rows.length === 0 ? `${count(total)}, of which no list was made.` : `The oldest ${count(shown.length)} of ${count(total)}.`);
  keyed($("cw-rows"), shown, (c) => `${namespaceKey(c.namespace)} ${c.local} ${c.remote} ${c.cookie}`,
    () => el("tr", {}, el("td", {class: "mono c-local"}), el("td", {class: "mono"}), el("td", {class: "num"}), el("td", {class: "num"}), el("td"), el("td")), (tr, c) => {
      const cells = tr.cells;
      text(cells[0], c.local);
      text(cells[1], c.remote);
      setCell(cells[2], c.age_seconds === null ? null : (c.age_at_least ? "≥" : "") + duration(c.age_seconds));
      text(cells[3], count(c.recv_q));
      text(cells[4], closeWaitKind(c));
      setCell(cells[5], c.comm ? `${c.comm} (${c.pid})` : null);
    });
}

let historyAsked = 0; // times, until the answer is there

async function renderHistory() {
  if (historyAsked++ > 0) return;
  try {
    const chosenName = report.namespaces.find((n) => namespaceKey(n) === $("namespace").value)?.name;
    const reply = await fetch("api/v1/history" + (chosenName ? "?" + new URLSearchParams({namespace: chosenName}) : ""));
    if (reply.ok) drawHistory((await reply.json()).moments);
  } catch { /* the banner says that nobody answers */ }
  const again = historyAsked > 1;
  historyAsked = 0;
  if (again) renderHistory();
}

function drawHistory(moments) {
  const last = moments.at(-1), times = moments.map((m) => Date.parse(m.time));
  const minutes = (times.at(-1) - times[0]) / 1000;
  text($("history-note"), moments.length < 2 ? "One report so far." : `${count(moments.length)} reports, of ${duration(minutes)}, from ${clock(new Date(times[0]))} to ${clock(new Date(times.at(-1)))}.`);
  const charts = [
    {name: "Verdict", value: last.verdict, draw: () => strip(moments.map((m) => m.verdict)), words: worstOf(moments)},
    {name: "TIME_WAIT", value: count(last.states.time_wait), values: moments.map((m) => m.states.time_wait), show: count},
    {name: "Closes per second", value: last.close_rate === null ? "–" : rate(last.close_rate), values: moments.map((m) => m.close_rate), show: rate},
    {name: "Tightest flow’s ports taken", value: last.tightest ? percent(last.tightest.taken_ratio) : "–", values: moments.map((m) => m.tightest?.taken_ratio ?? null), options: {top: 1, mark: 0.5}, show: percent},
  ];
  keyed($("history-charts"), charts, (c) => c.name, () => el("figure", {}, el("figcaption", {}, el("span", {class: "label"}), el("strong"), el("span", {class: "range"})), el("div")), (node, c) => {
    const [label, value, range] = node.firstChild.children;
    text(label, c.name);
    text(value, c.value);
    const numbers = (c.values ?? []).filter((v) => v !== null);
    text(range, c.words ?? (numbers.length ? `${c.show(Math.min(...numbers))} to ${c.show(Math.max(...numbers))}` : "not known"));
    node.lastChild.replaceChildren(c.draw ? c.draw() : line(c.values, c.options));
  });
}

function worstOf(moments) {
  const bad = moments.filter((m) => m.verdict !== "healthy").length;
  return bad === 0 ? "healthy all the time" : `not healthy in ${count(bad)} of ${plural(moments.length, "report")}`;
}

// renderLink says how old what is shown is, and why it isn't newer.
function renderLink() {
  const age = report ? Math.max(0, (performance.now() - looked) / 1000) : 0;
  const late = report && report.interval_seconds > 0 && age > 3 * report.interval_seconds + 2;
  const state = link.ended && report ? "ended" : !link.ok ? "gone" : link.stale || late ? "stale" : "live";
  attr(document.body, "data-link", state);
  if (state !== "gone") lostAt = null;
  else lostAt ??= Date.now();
  text($("age"), ageWords(state, age));
  attr($("age"), "title", report ? report.time : null);
  const words = performance.now() < link.quietUntil ? "" : warning(state, age);
  show($("banner"), words !== "");
  text($("banner"), words);
}

function ageWords(state, age) {
  if (!report) return link.ok ? "waiting for the first look" : "connecting";
  if (state === "ended") return `of ${moment(report.time)}`;
  return `looked ${duration(Math.floor(age))} ago${report.interval_seconds ? `, every ${duration(report.interval_seconds)}` : ""}`;
}

// warning is what is to be known of a state of the connection; "" of a good one.
function warning(state, age) {
  switch (state) {
    case "ended":
      return `The recording has ended. This is its last report, of ${moment(report.time)}.`;
    case "gone":
      return `No connection to twwatch since ${clock(new Date(lostAt))}. ${link.reason ? capital(link.reason) + ". " : ""}${report ? "What is shown is from then; trying again." : "Trying again."}`;
    case "stale":
      if (!report) return "twwatch answers, and has not looked yet. Its log says why.";
      return `Old data: twwatch answers, but its last look was at ${clock(new Date(Date.now() - age * 1000))}, more than three intervals ago. Its log says why.`;
  }
  return "";
}

function moment(time) {
  const date = new Date(time);
  return `${date.toLocaleDateString("en-CA")} ${clock(date)}`;
}

const capital = (s) => s[0].toUpperCase() + s.slice(1);

function themes() {
  const root = document.documentElement, button = $("theme");
  const name = () => root.dataset.theme ?? "system";
  const turn = () => {
    const next = {system: "light", light: "dark", dark: "system"}[name()];
    if (next === "system") delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      localStorage.setItem("twwatch-theme", next);
    } catch { /* for this page only, then */ }
    text(button, `Theme: ${name()}`);
  };
  text(button, `Theme: ${name()}`);
  button.addEventListener("click", turn);
  return turn;
}

function keys(turn) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const filter = $("filter"), typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
    if (event.key === "Escape" && document.activeElement === filter) {
      filter.value = "";
      filter.dispatchEvent(new Event("input"));
    } else if (!typing && event.key === "/") {
      event.preventDefault();
      filter.focus();
    } else if (!typing && event.key === "t") {
      turn();
    }
  });
}

keys(themes());
$("cw-more").addEventListener("click", () => {
  shownCloseWaits = mostCloseWaits;
  renderCloseWaits(chosen(report, $("namespace").value));
});
$("namespace").addEventListener("input", () => {
  render();
  renderHistory();
});
setInterval(renderLink, 1000);
follow({
  report: take,
  link: (state) => {
    link = {...state};
    if (state.age !== undefined && report) looked = performance.now() - state.age * 1000;
    renderLink();
  },
});
