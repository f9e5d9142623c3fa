// Numbers and names in a form that people read; the same as the commands write them.

/** The longest quantile that is known exactly: it stands for itself and more. */
const LONGEST_SECONDS = 10;

/** A service with its namespace, if it has one. */
export function fullName(namespace: string, name: string): string {
  return namespace ? `${namespace}/${name}` : name;
}

/** A count: exact up to five digits, then with a suffix. */
export function count(n: number): string {
  return n < 100_000 ? String(n) : scaled(n, ["", "k", "M", "G", "T", "P", "E"], "");
}

/** A count with its noun. */
export function counted(n: number, one: string): string {
  return `${count(n)} ${one}${n === 1 ? "" : "s"}`;
}

/** A size in decimal units. */
export function bytes(n: number): string {
  return scaled(n, ["B", "kB", "MB", "GB", "TB", "PB", "EB"], " ");
}

/** A number per second. */
export function rate(perSecond: number): string {
  return scaled(perSecond, ["", "k", "M", "G"], "");
}

/** A number of percent. */
export function percent(n: number): string {
  return `${threeDigits(n)}%`;
}

/** A duration with three digits. */
export function duration(seconds: number): string {
  if (seconds < 1e-3) return `${threeDigits(seconds * 1e6)} µs`;
  if (seconds < 1) return `${threeDigits(seconds * 1e3)} ms`;
  return `${threeDigits(seconds)} s`;
}

/** A quantile, if anything was measured. */
export function quantile(seconds: number | null): string {
  if (seconds === null) return "–";
  return seconds >= LONGEST_SECONDS ? `> ${duration(LONGEST_SECONDS)}` : duration(seconds);
}

/** A span of time in its largest unit. */
export function span(seconds: number): string {
  if (seconds < 120) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

/** How long ago a time of the agent was, by the agent's own clock. */
export function ago(time: string, now: string): string {
  return `${span((Date.parse(now) - Date.parse(time)) / 1000)} ago`;
}

/** The time of day, as the reader's clock has it. */
export function clock(time: string): string {
  return new Date(time).toLocaleTimeString("en-GB");
}

/** Older numbers are not of now, whatever the clocks of two hosts differ by. */
const PAST_MS = 60_000;

/** Whether the agent said this so long ago that it is of the past: a snapshot, or a cache. */
export function isPast(time: string): boolean {
  return Date.now() - Date.parse(time) > PAST_MS;
}

/** When numbers are of: the time of day, with the day if they are of the past. */
export function moment(time: string): string {
  return isPast(time) ? `${new Date(time).toLocaleDateString("en-GB", { dateStyle: "medium" })} ${clock(time)}` : clock(time);
}

/** A text without its middle if it is too long. */
export function shortened(text: string, longest: number): string {
  const letters = [...text];
  if (letters.length <= longest) return text;
  const tail = Math.floor((longest - 1) / 2);
  return [...letters.slice(0, longest - 1 - tail), "…", ...letters.slice(letters.length - tail)].join("");
}

function scaled(value: number, units: string[], space: string): string {
  let unit = 0;
  // 999.5 would be written as 1000.
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${threeDigits(value)}${space}${units[unit]}`;
}

function threeDigits(value: number): string {
  const decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return String(Number(value.toFixed(decimals)));
}
