// Numbers as people read them.

const whole = new Intl.NumberFormat("en-US", {maximumFractionDigits: 0});

export function count(n) {
  return whole.format(n);
}

// rate is a number per second, without the unit.
export function rate(n) {
  if (n === 0) return "0";
  const size = Math.abs(n);
  if (size < 0.01) return n < 0 ? "−<0.01" : "<0.01";
  const digits = size < 1 ? 2 : size < 10 ? 1 : 0;
  return new Intl.NumberFormat("en-US", {maximumFractionDigits: digits}).format(n).replace("-", "−");
}

// change is a rate with its sign.
export function change(n) {
  const shown = rate(n);
  return n > 0 && shown !== "0" ? "+" + shown : shown;
}

export function duration(seconds) {
  if (seconds < 0.001) return "<1 ms";
  if (seconds < 1) return `${whole.format(seconds * 1000)} ms`;
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  const s = Math.round(seconds);
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} days`;
}

// percent never rounds to 0 or 100 what is neither.
export function percent(share) {
  const p = share * 100;
  if (p > 0 && p < 1) return "<1 %";
  if (p < 100 && p > 99) return "99 %";
  return `${Math.round(p)} %`;
}

export function clock(date) {
  return date.toLocaleTimeString("en-GB");
}

export function plural(n, one, many = one + "s") {
  return `${count(n)} ${n === 1 ? one : many}`;
}

export function amount(value, unit) {
  if (unit === "s" || unit === "seconds") return duration(value);
  if (unit === "ratio") return percent(value);
  const shown = Number.isInteger(value) ? count(value) : rate(value);
  return unit ? `${shown} ${unit}` : shown;
}
