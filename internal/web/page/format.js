// Numbers as people read them.

const whole = new Intl.NumberFormat("en-US", {maximumFractionDigits: 0});

export function count(n) {
  return whole.format(n);
}

const decimals = [0, 1, 2].map((digits) => new Intl.NumberFormat("en-US", {minimumFractionDigits: digits, maximumFractionDigits: digits}));

// rate is a number per second, without the unit.
export function rate(n) {
  if (n === 0) return "0";
  const size = Math.abs(n), sign = n < 0 ? "−" : "";
  if (size < 0.01) return sign + "<0.01";
  return sign + decimals[size < 0.995 ? 2 : size < 9.95 ? 1 : 0].format(size);
}

// change is a rate with its sign.
export function change(n) {
  const shown = rate(n);
  return n > 0 && shown !== "0" ? "+" + shown : shown;
}

// duration is in the one or two units that matter, as in texts of twwatch.
export function duration(seconds) {
  if (seconds === 0) return "0 s";
  if (seconds < 0.0001) return "<0.1 ms";
  if (seconds < 0.00995) return `${tenth(seconds * 1000)} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${tenth(seconds)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  if (seconds < 3599.5) return two(seconds, 60, "min", 1, "s");
  if (seconds < 86370) return two(seconds, 3600, "h", 60, "min");
  return two(seconds, 86400, "d", 3600, "h");
}

const tenth = (n) => String(Math.round(n * 10) / 10);

function two(n, large, largeName, small, smallName) {
  const units = Math.round(n / small), per = large / small, rest = units % per;
  return `${count(Math.floor(units / per))} ${largeName}${rest ? ` ${rest} ${smallName}` : ""}`;
}

// percent never rounds to 0 or 100 what is neither.
export function percent(share) {
  const p = share * 100;
  if (p > 0 && p < 0.5) return "<1 %";
  if (p < 100 && p >= 99.5) return ">99 %";
  return `${Math.round(p)} %`;
}

export function clock(date) {
  return date.toLocaleTimeString("en-GB");
}

export function plural(n, one, many = one + "s") {
  return `${count(n)} ${n === 1 ? one : many}`;
}

// amount is a measured value with its unit.
export function amount(value, unit) {
  if (value === null) return "not known";
  if (unit === "s" || unit === "seconds") return duration(value);
  if (unit === "ratio") return percent(value);
  if (unit === "%" || unit === "percent") return percent(value / 100);
  if (unit === "port") return String(value);
  const shown = Number.isInteger(value) ? count(value) : rate(value);
  if (unit.startsWith("1/")) return shown + unit.slice(1);
  return unit ? `${shown} ${unit}` : shown;
}
