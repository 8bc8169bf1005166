// Findings with their advice.
import {attr, copyText, el, keyed, show, text} from "./dom.js";
import {amount, clock, duration, plural} from "./format.js";
import {families, findingKey, severities} from "./model.js";

const $ = (id) => document.getElementById(id);

export function renderFindings(report) {
  const {roots, follow} = families(report.findings);
  const worst = (f) => -severities.indexOf(f.severity);
  roots.sort((a, b) => worst(a) - worst(b));
  const grave = roots.filter((f) => f.severity !== "info"), notes = roots.filter((f) => f.severity === "info");
  const list = (place, findings) => keyed(place, findings, findingKey, () => item(), (node, f) => node.update(f, follow.get(f) ?? [], report));
  list($("finding-list"), grave);
  list($("note-list"), notes);
  show($("finding-none"), grave.length === 0);
  text($("finding-none"), notes.length ? "Nothing that needs action." : "None.");
  show($("notes"), notes.length > 0);
  text($("notes-title"), plural(notes.length, "note"));
  renderGaps(report);
}

function renderGaps(report) {
  const gaps = [...report.incomplete.map((g) => ({...g, kind: "Not seen"})), ...(report.limited ?? []).map((g) => ({...g, kind: "Limited"}))];
  for (const rule of report.not_judged) gaps.push({kind: "Not judged", error: rule, stage: "", namespace: "", lost: "", fix: ""});
  show($("gaps"), gaps.length > 0);
  const seen = report.incomplete.length;
  text($("gaps-title"), seen ? `${plural(seen, "thing")} could not be seen` : "What was not looked at");
  attr($("gaps"), "data-severity", seen ? "warning" : null);
  keyed($("gap-list"), gaps, (g) => JSON.stringify([g.kind, g.stage, g.namespace, g.error, g.lost]), () => el("li"), (node, g) => {
    const where = g.namespace ? ` in ${g.namespace}` : "";
    text(node, `${g.kind}${where}: ${[g.error, g.lost && "lost: " + g.lost, g.fix && "to do: " + g.fix].filter(Boolean).join("; ")}`);
  });
}

// item makes one finding's element; its parts stay the same elements as long as
// it is there, so that what is open or selected stays.
function item() {
  const mark = el("span", {class: "severity"}), summary = el("span", {class: "summary"}), meta = el("span", {class: "meta"}), hint = el("span", {class: "hint"});
  const advice = el("div", {class: "advice"}), evidence = el("tbody"), consequences = el("ul", {class: "consequences"});
  const numbers = el("table", {class: "evidence"}, el("caption", {}, "Measured"), evidence);
  const link = el("a", {}, "Explained at length");
  const details = el("details", {}, el("summary", {}, mark, summary, hint, meta), el("div", {class: "body"}, advice, el("div", {class: "aside"}, numbers, consequences, el("p", {}, link))));
  const node = el("li", {class: "finding"}, details);
  node.update = (f, follow, report) => {
    attr(node, "data-severity", f.severity);
    attr(node, "data-id", f.id);
    text(mark, f.severity);
    text(summary, f.summary);
    const first = f.recommendations[0];
    text(hint, first ? `→ ${first.title}` : "");
    text(meta, about(f, report));
    attr(link, "href", `explain/${encodeURIComponent(f.id)}`);
    keyed(advice, f.recommendations, (r) => r.id, recommendation, (n, r) => n.update(r));
    show(numbers, f.evidence.length > 0);
    keyed(evidence, f.evidence, (e) => e.what, () => el("tr", {}, el("th", {scope: "row"}), el("td", {class: "num"}), el("td", {class: "source"})), (row, e) => {
      text(row.cells[0], e.what);
      text(row.cells[1], amount(e.value, e.unit));
      text(row.cells[2], e.source);
    });
    show(consequences, follow.length > 0);
    keyed(consequences, follow, findingKey, () => el("li", {}, el("span", {class: "severity"}), el("span"), " ", el("a", {}, "why")), (n, c) => {
      attr(n, "data-severity", c.severity);
      text(n.children[0], c.severity);
      text(n.children[1], " " + c.summary);
      attr(n.children[2], "href", `explain/${encodeURIComponent(c.id)}`);
      attr(n.children[2], "aria-label", `Why: ${c.id}`);
    });
  };
  return node;
}

function about(f, report) {
  const parts = [f.id];
  if (report.namespaces.length > 1) parts.push(`in ${f.namespace}`);
  if (f.subject.process) parts.push(f.subject.process);
  if (f.since) {
    const age = (Date.parse(report.time) - Date.parse(f.since)) / 1000;
    if (age >= 1) parts.push(`for ${duration(age)}`);
    else parts.push(`since ${clock(new Date(f.since))}`);
  }
  if (f.because_of) parts.push(`follows from ${f.because_of}`);
  return parts.join(" · ");
}

function recommendation() {
  const title = el("h3"), what = el("p", {class: "do"}), effect = el("p", {class: "effect"}), caveats = el("ul", {class: "caveats"}), sources = el("ul", {class: "sources"});
  const code = el("code"), copy = el("button", {type: "button", class: "quiet copy"}, "Copy");
  const snippet = el("div", {class: "snippet"}, el("pre", {tabindex: 0}, code), copy);
  copy.addEventListener("click", async () => {
    let done = false;
    try {
      done = await copyText(code);
    } catch { /* not allowed here */ }
    text(copy, done ? "Copied" : "Select it and copy");
    setTimeout(() => text(copy, "Copy"), 2000);
  });
  const node = el("div", {class: "recommendation"}, title, what, snippet, effect, caveats, sources);
  node.update = (r) => {
    text(title, r.title);
    text(what, r.do);
    show(snippet, Boolean(r.snippet));
    text(code, r.snippet ?? "");
    attr(snippet.firstChild, "aria-label", `Setting: ${r.title}`);
    attr(copy, "aria-label", `Copy the setting: ${r.title}`);
    show(effect, Boolean(r.effect));
    text(effect, r.effect ? `Effect: ${r.effect}` : "");
    lines(caveats, r.caveats, (li, line) => text(li, line));
    lines(sources, r.references, source);
  };
  return node;
}

function lines(list, all, update) {
  show(list, all.length > 0);
  keyed(list, all, (line) => line, () => el("li"), update);
}

// source shows a reference, as a link where it has an address.
function source(li, reference) {
  const address = /https?:\/\/[^\s<>"]+/.exec(reference)?.[0];
  if (!address) {
    text(li, reference);
    return;
  }
  if (li.firstChild) return;
  const words = reference.replace(address, "").replace(/[\s:()]+$/, "").trim();
  li.append(el("a", {href: address, rel: "noreferrer noopener", target: "_blank"}, words || address));
}
