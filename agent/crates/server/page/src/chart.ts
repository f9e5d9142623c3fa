// Small charts: a line over time, and bars. Gaps are drawn as gaps, and a zero as a zero.

import type { Point } from "./api.ts";
import { drawing, element } from "./dom.ts";

const WIDTH = 240;
const HEIGHT = 40;

/** What a chart draws of a point; null draws nothing. */
export type Value = (point: Point) => number | null;

/** The path of a line over `seconds` up to `until`, both in seconds since 1970. */
export function path(points: Point[], value: Value, until: number, seconds: number, highest: number, width: number, height: number): string {
  let text = "";
  let before: number | null = null;
  for (const point of points) {
    const at = Date.parse(point.since) / 1000;
    const y = value(point);
    if (y === null || seconds <= 0) continue;
    const x = width * (1 - (until - at) / seconds);
    const top = height - 1 - (highest > 0 ? Math.min(1, y / highest) : 0) * (height - 2);
    // Times without anything have no point: more than three steps are a gap.
    const isNext = before !== null && at - before < 3.5 * Math.max(point.seconds, 0.5);
    text += `${isNext ? "L" : "M"}${x.toFixed(1)} ${top.toFixed(1)}h1`;
    before = at;
  }
  return text;
}

/** The highest value. */
export function highest(points: Point[], value: Value): number {
  return points.reduce((most, point) => Math.max(most, value(point) ?? 0), 0);
}

/** A line without axes, for a cell of a table. */
export function sparkline(points: Point[], value: Value, until: number, seconds: number, label: string): SVGElement {
  const most = highest(points, value);
  return drawing(
    "svg",
    { class: "spark", viewBox: "0 0 80 18", width: 80, height: 18, role: "img", "aria-label": label },
    drawing("path", { d: path(points, value, until, seconds, most, 80, 18) }),
  );
}

/** A line with its name, its last and its highest value. */
export function chart(title: string, points: Point[], value: Value, until: number, seconds: number, text: (n: number) => string, kind = ""): HTMLElement {
  const most = highest(points, value);
  const last = points.findLast((point) => value(point) !== null);
  const latest = last ? text(value(last) ?? 0) : "–";
  const label = `${title}: ${latest}, at most ${text(most)}`;
  return element(
    "figure",
    { class: `chart ${kind}` },
    element("figcaption", {}, element("span", {}, title), element("b", {}, latest), element("span", { class: "quiet" }, `max ${text(most)}`)),
    drawing(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
      drawing("path", { class: "base", d: `M0 ${HEIGHT - 1}H${WIDTH}` }),
      drawing("path", { class: "line", d: path(points, value, until, seconds, most, WIDTH, HEIGHT) }),
    ),
  );
}
