// The TCP states as in RFC 9293, figure 5, with what is in each.
import {attr, el, svg, text} from "./dom.js";
import {change, count, rate} from "./format.js";
import {severities, states, statesOf} from "./model.js";

// Places are the middle of each box: wide, and for a phone.
const wide = {
  width: 900, height: 568, box: [164, 64], labels: true,
  at: {
    listen: [96, 62], syn_recv: [360, 62], syn_sent: [640, 62], established: [450, 178, 300],
    fin_wait1: [230, 318], fin_wait2: [122, 418], closing: [338, 418], time_wait: [230, 518, 300],
    close_wait: [670, 318], last_ack: [670, 418],
  },
  closed: [670, 518], panels: [[14, 250, 432, 314], [454, 250, 432, 314]],
};
const narrow = {
  width: 380, height: 640, box: [168, 66], labels: false,
  at: {
    listen: [98, 48], syn_recv: [98, 146], syn_sent: [282, 146], established: [190, 252, 352],
    fin_wait1: [98, 378], fin_wait2: [52, 478, 84], closing: [144, 478, 84], time_wait: [98, 578],
    close_wait: [282, 378], last_ack: [282, 478],
  },
  closed: [282, 578], panels: [[4, 312, 184, 324], [192, 312, 184, 324]],
};

// Edges lead from state to state; what makes a connection go there; where the
// words stand, from the edge's middle.
const edges = [
  ["listen", "syn_recv", "SYN arrives", [0, -7, "middle"]],
  ["syn_recv", "established", "ACK arrives", [-12, 4, "end"]],
  ["syn_sent", "established", "SYN, ACK arrive", [12, 4, "start"]],
  ["established", "fin_wait1", "close() sends FIN", [-14, 0, "end"]],
  ["established", "close_wait", "FIN arrives", [14, 0, "start"]],
  ["fin_wait1", "fin_wait2", "ACK", [-9, 2, "end"]],
  ["fin_wait1", "closing", "FIN", [9, 2, "start"]],
  ["fin_wait1", "time_wait", null],
  ["fin_wait2", "time_wait", "FIN", [-9, 6, "end"]],
  ["closing", "time_wait", "ACK", [9, 6, "start"]],
  ["close_wait", "last_ack", "close() sends FIN", [10, 4, "start"]],
  ["last_ack", "closed", "ACK arrives", [10, 4, "start"]],
  ["time_wait", "closed", "after 60 s", [0, -7, "middle"]],
];

export const names = {
  listen: "LISTEN", syn_recv: "SYN_RECV", syn_sent: "SYN_SENT", established: "ESTABLISHED", fin_wait1: "FIN_WAIT1",
  fin_wait2: "FIN_WAIT2", closing: "CLOSING", time_wait: "TIME_WAIT", close_wait: "CLOSE_WAIT", last_ack: "LAST_ACK",
};

// diagram draws into a place, and returns what updates it.
export function diagram(place) {
  const phone = matchMedia("(max-width: 640px)");
  let nodes = draw(place, phone.matches ? narrow : wide);
  let last = null;
  phone.addEventListener("change", () => {
    nodes = draw(place, phone.matches ? narrow : wide);
    if (last) update(nodes, last);
  });
  return (data) => {
    last = data;
    update(nodes, data);
  };
}

function draw(place, plan) {
  const size = (name) => [plan.at[name]?.[2] ?? (name === "closed" ? 96 : plan.box[0]), name === "closed" ? 34 : plan.box[1]];
  const at = (name) => (name === "closed" ? plan.closed : plan.at[name]);
  const root = svg("svg", {viewBox: `0 0 ${plan.width} ${plan.height}`, role: "group", "aria-label": "TCP states and the sockets in each", class: plan.labels ? "wide" : "narrow"});
  root.append(svg("defs", {}, svg("marker", {id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse"},
    svg("path", {d: "M0 0.8 7 4 0 7.2z", class: "head"}))));
  plan.panels.forEach(([x, y, width, height], i) => {
    root.append(svg("rect", {x, y, width, height, rx: 14, class: "panel"}),
      svg("text", {x: i ? x + width - 14 : x + 14, y: plan.labels ? y + 21 : y + height - 8, class: "panel-name", "text-anchor": i ? "end" : "start"}, i ? "the other end closed first" : "this end closed first"));
  });
  for (const [from, to, words, shift] of edges) {
    const [[x1, y1], [x2, y2]] = between(at(from), size(from), at(to), size(to));
    root.append(svg("path", {d: `M${x1} ${y1}L${x2} ${y2}`, class: "edge", "marker-end": "url(#arrow)"}));
    if (plan.labels && words) {
      root.append(svg("text", {x: (x1 + x2) / 2 + shift[0], y: (y1 + y2) / 2 + shift[1], "text-anchor": shift[2], class: "edge-name"}, words));
    }
  }
  root.append(box("closed", at("closed"), size("closed")).group);
  const nodes = {};
  for (const name of Object.keys(states)) {
    const node = box(name, at(name), size(name));
    nodes[name] = node;
    root.append(node.group);
  }
  place.replaceChildren(root);
  return nodes;
}

// between cuts the line from box to box at their edges.
function between(a, [aw, ah], b, [bw, bh]) {
  // Boxes above one another are joined straight down where they overlap.
  const left = Math.max(a[0] - aw / 2, b[0] - bw / 2) + 16, right = Math.min(a[0] + aw / 2, b[0] + bw / 2) - 16;
  if (left <= right && Math.abs(a[1] - b[1]) > (ah + bh) / 2) {
    const x = aw > bw ? b[0] : a[0], down = Math.sign(b[1] - a[1]);
    const straight = Math.min(Math.max(x, left), right);
    return [[straight, a[1] + (down * ah) / 2], [straight, b[1] - (down * (bh / 2 + 2))]];
  }
  return [edgeOf(a, [aw, ah], b, 0), edgeOf(b, [bw, bh], a, 2)];
}

function edgeOf([x, y], [w, h], [tx, ty], gap) {
  const dx = tx - x, dy = ty - y;
  const t = Math.min((w / 2 + gap) / Math.abs(dx || 1e-9), (h / 2 + gap) / Math.abs(dy || 1e-9));
  return [Math.round(x + dx * t), Math.round(y + dy * t)];
}

function box(name, [cx, cy], [w, h]) {
  const x = cx - w / 2, y = cy - h / 2;
  if (name === "closed") {
    return {group: svg("g", {class: "closed", "aria-hidden": "true"}, svg("rect", {x, y, width: w, height: h, rx: h / 2}),
      svg("text", {x: cx, y: cy + 4, "text-anchor": "middle"}, "closed"))};
  }
  const pad = w < 100 ? 8 : 13;
  const number = svg("text", {x: x + pad, y: y + h - 15, class: "count", "data-count": name}, "–");
  const speed = svg("text", {x: x + w - pad, y: y + h - 17, class: "rate", "text-anchor": "end", "data-rate": name});
  const level = svg("rect", {x: x + 9, y: y + h - 5, width: 0, height: 4, rx: 2, class: "level"});
  const link = svg("a", {href: `explain/${states[name]}`},
    svg("rect", {x, y, width: w, height: h, rx: 9, class: "box"}),
    svg("text", {x: x + pad, y: y + 22, class: "name"}, names[name]), number, w < 100 ? null : speed, level);
  return {group: svg("g", {class: "state", "data-state": name}, link), link, number, speed, level, width: w - 18};
}

function update(nodes, {counts, rates, findings}) {
  const all = Object.keys(states).filter((n) => n !== "listen").reduce((sum, n) => sum + counts[n], 0);
  const marks = {};
  for (const f of findings) {
    for (const name of statesOf(f)) {
      if (severities.indexOf(f.severity) > severities.indexOf(marks[name] ?? "info")) marks[name] = f.severity;
    }
  }
  for (const [name, node] of Object.entries(nodes)) {
    const n = counts[name];
    text(node.number, count(n));
    const [short, long] = speedOf(rates[name]);
    text(node.speed, short);
    const share = name === "listen" || all === 0 ? 0 : n / all;
    attr(node.level, "width", n > 0 && share > 0 ? Math.max(3, Math.round(node.width * share)) : 0);
    attr(node.group, "data-mark", marks[name]);
    attr(node.group, "data-empty", n === 0);
    attr(node.link, "aria-label", `${names[name]}: ${count(n)} ${n === 1 ? "socket" : "sockets"}${long ? ", " + long : ""}${marks[name] ? ", " + marks[name] : ""}`);
  }
}

// speedOf is a state's rate for eyes and for ears.
function speedOf(speed) {
  if (!speed) return ["", ""];
  if (speed.in !== undefined) return [`${speed.floor ? "≥" : ""}${rate(speed.in)}/s`, `${speed.floor ? "at least " : ""}${rate(speed.in)} enter per second`];
  if (speed.out !== undefined) return [`${rate(speed.out)}/s →`, `${rate(speed.out)} become ESTABLISHED per second`];
  return [`Δ ${change(speed.net)}/s`, `changes by ${change(speed.net)} per second`];
}
