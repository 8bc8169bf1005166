// Plots without a library: the last minute's closes, and small lines.
import {attr, el, svg, text} from "./dom.js";
import {count} from "./format.js";

// bars draws one bar a second into a place, and returns what updates it.
export function bars(place) {
  const height = 150, bottom = 20, left = 44, top = 12;
  const root = svg("svg", {role: "img", "aria-label": "not known yet", height});
  const top2 = svg("text", {x: left - 8, y: top + 4, class: "tick", "text-anchor": "end"});
  const grid = [svg("path", {class: "grid"}), svg("path", {class: "grid"})];
  const marks = [60, 45, 30, 15, 0].map((s) => svg("text", {y: height - 4, class: "tick", "text-anchor": s === 0 ? "end" : s === 60 ? "start" : "middle"}, s === 0 ? "now" : `−${s} s`));
  const rects = Array.from({length: 60}, () => svg("rect", {class: "second"}));
  const readout = svg("text", {class: "readout", y: top + 4, "text-anchor": "end"});
  root.append(...grid, top2, svg("text", {x: left - 8, y: height - bottom, class: "tick", "text-anchor": "end"}, "0"), ...rects, ...marks, readout);
  place.replaceChildren(root);
  let values = new Array(60).fill(0), width = 0;
  const layout = () => {
    const most = niceTop(Math.max(1, ...values)), plot = width - left, step = plot / 60;
    const y = (v) => top + (height - bottom - top) * (1 - v / most);
    attr(root, "viewBox", `0 0 ${width} ${height}`);
    text(top2, count(most));
    attr(grid[0], "d", `M${left} ${y(most)}H${width}`);
    attr(grid[1], "d", `M${left} ${y(0)}H${width}`);
    rects.forEach((r, i) => {
      attr(r, "x", (left + i * step + 0.5).toFixed(1));
      attr(r, "width", Math.max(1, step - 1.5).toFixed(1));
      attr(r, "y", y(values[i]).toFixed(1));
      attr(r, "height", (y(0) - y(values[i])).toFixed(1));
    });
    marks.forEach((m, i) => attr(m, "x", (left + (plot * i) / 4).toFixed(0)));
    attr(readout, "x", width);
  };
  new ResizeObserver(([entry]) => {
    const w = Math.round(entry.contentRect.width);
    if (w > 0 && w !== width) {
      width = w;
      layout();
    }
  }).observe(place);
  root.addEventListener("pointermove", (event) => {
    const r = root.getBoundingClientRect();
    const i = Math.floor(((event.clientX - r.left - left) / (r.width - left)) * 60);
    text(readout, i >= 0 && i < 60 ? `${count(values[i])} closed ${60 - i} s ago` : "");
  });
  root.addEventListener("pointerleave", () => text(readout, ""));
  return (next, words) => {
    values = next;
    attr(root, "aria-label", words);
    if (width > 0) layout();
  };
}

// niceTop is the end of an axis: a round number.
export function niceTop(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((f) => f * power).find((v) => v >= most);
}

// line makes a small line through values, the oldest first; null is a gap.
export function line(values, {width = 260, height = 56, top, mark} = {}) {
  const numbers = values.filter((v) => v !== null);
  const most = top ?? niceTop(Math.max(1e-9, ...numbers));
  const x = (i) => (values.length < 2 ? width : (i / (values.length - 1)) * (width - 4) + 2);
  const y = (v) => 3 + (height - 6) * (1 - v / most);
  let path = "", pen = "M";
  values.forEach((v, i) => {
    if (v === null) {
      pen = "M";
      return;
    }
    path += `${pen}${x(i).toFixed(1)} ${y(v).toFixed(1)}`;
    pen = "L";
  });
  const last = values.at(-1);
  return svg("svg", {viewBox: `0 0 ${width} ${height}`, class: "line", "aria-hidden": "true", preserveAspectRatio: "none"},
    svg("path", {d: `M0 ${height - 3}H${width}`, class: "grid"}),
    mark === undefined ? null : svg("path", {d: `M0 ${y(mark)}H${width}`, class: "limit"}),
    svg("path", {d: path, class: "trace"}),
    last === null || last === undefined ? null : svg("circle", {cx: x(values.length - 1), cy: y(last), r: 2.5, class: "end"}));
}

// strip is one cell a moment, of its verdict.
export function strip(verdicts) {
  return el("div", {class: "strip", "aria-hidden": "true"}, ...verdicts.map((v) => el("i", {"data-verdict": v})));
}
