// The panel beside the map: everything that explains one edge. It asks the agent for what only it
// shows (history, events, listeners) when it is opened and while it is open.

import { ask, ifRefused, type AgentEvent, type Edge, type History, type Segments, type BalanceGroup } from "./api.ts";
import { chart } from "./chart.ts";
import { by, element, say, visible, type Content } from "./dom.ts";
import { causeText, keyOf, resets, SIGNS, sum, type Row } from "./edges.ts";
import { changesText } from "./problems.ts";
import { bytes, clock, count, counted, duration, fullName, percent, quantile, rate, span } from "./text.ts";
import type { Selection } from "./view.ts";

const EVENTS = 8;
/** Events of the last five minutes. */
const RECENT_MS = 300_000;

export interface Listener {
  service: string;
  service_namespace: string;
  port: number;
  address: string;
  backlog: number;
  max_backlog: number;
}

/** What the panel asks for by itself. */
export interface Details {
  history: History | null;
  events: AgentEvent[];
  listeners: Listener[];
}

/** Everything that is known of the moment. */
export interface Around {
  now: string;
  window: string;
  seconds: number;
  rows: Row[];
  balance: BalanceGroup[];
  segments: Segments | null;
  select: (selection: Selection) => void;
}

/** Asks for the details of an edge; what cannot be had is left out. */
export async function details({ client, server, port }: Selection, now: string, signal: AbortSignal): Promise<Details> {
  const ends = { client, server, port };
  const since = new Date(Date.parse(now) - RECENT_MS).toISOString();
  const [history, events, listeners] = await Promise.all([
    ask<History>("history", { ...ends, window: "5m", limit: 2 }, signal).catch(ifRefused(null)),
    ask<{ events: AgentEvent[] }>("events", { ...ends, since, limit: 5000 }, signal).catch(ifRefused({ events: [] })),
    ask<{ listeners: Listener[] }>("listeners", {}, signal).catch(ifRefused({ listeners: [] })),
  ]);
  return { history, events: events.events.slice(-EVENTS).reverse(), listeners: listeners.listeners };
}

/** Draws the edge into the panel. */
export function show(selection: Selection, details: Details | null, around: Around): void {
  const { client, server, port } = selection;
  const wanted = JSON.stringify([client, server, port]);
  const isIt = (row: Row) => (row.isListener ? client === "any" && row.server === server && row.edge.port === port : row.key === wanted);
  const rows = around.rows.filter(isIt);
  const row = rows.find((one) => !one.edge.other_side) ?? rows[0];
  const other = rows.find((one) => one.edge.other_side && one !== row);
  say(by("panel-title"), visible(`${client === "any" ? "(listener)" : client} → ${server}:${port}`));
  const sections: Content[] = row
    ? [...facts(row, other?.edge, around), ...charts(details), ...backends(row, around), ...listener(row, details), ...segment(row, around)]
    : [element("p", {}, `No traffic in this window (${span(around.seconds)}).`), ...charts(details)];
  by("panel-body").replaceChildren(...[...sections, ...events(details, around), ...suffer(selection, around)].filter((one) => one instanceof Node));
}

function section(title: string, ...contents: Content[]): HTMLElement {
  return element("section", {}, element("h3", {}, title), ...contents);
}

function pair(name: string, ...value: Content[]): Content[] {
  return [element("dt", {}, name), element("dd", {}, ...value)];
}

function facts(row: Row, other: Edge | undefined, { now, seconds, window }: Around): Content[] {
  const { edge } = row;
  const [here, there] = edge.role === "server" ? [undefined, edge] : [edge, other];
  const results = Object.entries(edge.connects).map(([result, n]) => `${result.replaceAll("_", " ")} ${count(n)}`);
  const side = (name: string, it: Edge | undefined) =>
    it && it.request.count > 0 ? `${name} P50 ${quantile(it.request.p50_seconds)}, P99 ${quantile(it.request.p99_seconds)}` : "";
  const statuses = Object.entries(edge.responses).map(
    ([protocol, counts]) => `${protocol}: ${Object.entries(counts).map(([status, n]) => `${status} ${count(n)}`).join(", ")}`,
  );
  const silent = Object.entries(edge.protocols).filter(([protocol]) => !(protocol in edge.responses));
  const protocols = [...statuses, ...silent.map(([protocol, n]) => `${protocol}: ${count(n)} connections`)];
  const causes = [...Object.entries(edge.resets_sent), ...Object.entries(edge.resets_received)];
  const byCause = causes.filter(([cause]) => cause !== "no_listener").map(([cause, n]) => `${cause.replaceAll("_", " ")} ${count(n)}`);
  const phases = Object.entries(edge.retransmits_by_phase).map(([phase, n]) => `${phase} ${count(n)}`);
  const listeners = edge.listen_overflows + edge.synack_retransmits;
  const changes = changesText(edge.changes_before, now);
  const limits = Object.entries(edge.limited_seconds).map(([by, s]) => `${by.replaceAll("_", " ")} ${duration(s)}`);
  return [
    element(
      "p",
      { class: "state", "data-state": row.state },
      `${SIGNS[row.state]} ${row.state}`,
      element("span", { class: "quiet" }, ` ${window === "start" ? "since the start" : `last ${span(seconds)}`}, counted by the ${edge.role}`),
    ),
    edge.why.length > 0 && section("Why", element("ul", {}, ...edge.why.map((cause) => element("li", {}, causeText(cause))))),
    edge.why.length === 0 && row.why !== "" && section("Why", element("p", {}, row.why)),
    changes !== "" && section("Changed before", element("p", {}, changes)),
    element(
      "dl",
      {},
      ...pair("Connects", sum(edge.connects) > 0 ? `${rate(row.connects)}/s: ${results.join(", ")}` : "none", edge.connect.count > 0 && `; P99 ${quantile(edge.connect.p99_seconds)}`),
      ...pair("Open", `${count(edge.active)}, opened ${count(edge.opened)}, closed ${count(edge.closed)}`),
      ...pair("Requests", `${rate(row.requests)}/s`, ...[side("client", here), side("server", there)].filter(Boolean).map((text) => element("div", {}, text))),
      ...pair("Unanswered", count(edge.unanswered)),
      ...(protocols.length > 0 ? pair("Protocol", protocols.join("; ")) : []),
      ...pair("Resets", `${count(resets(edge))}${byCause.length > 0 ? ` (${byCause.join(", ")})` : ""}`),
      ...pair("Round trip", `P50 ${quantile(edge.rtt.p50_seconds)}, P99 ${quantile(edge.rtt.p99_seconds)}`),
      ...pair("Retransmits", `${count(edge.retransmits)}${row.retransmits === null ? "" : ` (${percent(row.retransmits)} of segments)`}${phases.length > 0 ? `: ${phases.join(", ")}` : ""}`),
      ...pair("Bytes", `sent ${bytes(edge.sent_bytes)}, received ${bytes(edge.received_bytes)}`),
      ...(limits.length > 0 ? pair("Limited by", limits.join(", ")) : []),
      ...(listeners > 0 ? pair("Listener", `${count(edge.listen_overflows)} dropped, ${count(edge.synack_retransmits)} SYN-ACK retransmits`) : []),
      ...(edge.virtual_service ? pair("By way of", fullName(edge.virtual_service_namespace ?? "", edge.virtual_service)) : []),
      ...pair("Names", `client: ${edge.client_source.replaceAll("_", " ")}; server: ${edge.server_source.replaceAll("_", " ")}`),
    ),
  ];
}

function charts(details: Details | null): Content[] {
  const history = details?.history;
  const series = history?.series.find((one) => one.role === "client") ?? history?.series[0];
  if (!history) return [element("p", { class: "quiet" }, "Loading the last five minutes…")];
  const points = series?.points ?? [];
  const until = Date.parse(history.window.until) / 1000;
  const seconds = 300;
  const per = (n: number, at: { seconds: number }) => (at.seconds > 0 ? n / at.seconds : 0);
  return [
    section(
      "Last 5 minutes",
      element(
        "div",
        { class: "charts" },
        chart("requests/s", points, (at) => per(at.requests, at), until, seconds, rate),
        chart("P99", points, (at) => at.p99_seconds, until, seconds, quantile),
        chart("failed connects, unanswered/s", points, (at) => per(at.connects_failed + at.unanswered, at), until, seconds, rate, "bad"),
        chart("retransmits/s", points, (at) => per(at.retransmits, at), until, seconds, rate, "bad"),
      ),
      distribution(points),
    ),
  ];
}

/** Steps of the history by their P99: whether it was always slow, or now and then. */
const BOUNDS = [1e-4, 1e-3, 1e-2, 0.1, 0.5, 1, 10];

function distribution(points: { p99_seconds: number | null; requests: number }[]): Content {
  const bins = BOUNDS.map((bound, i) => ({ bound, before: BOUNDS[i - 1] ?? 0, n: 0 }));
  let all = 0;
  for (const { p99_seconds: p99, requests } of points) {
    const bin = p99 === null ? undefined : (bins.find(({ bound }) => p99 <= bound) ?? bins.at(-1));
    if (!bin) continue;
    bin.n += requests;
    all += requests;
  }
  if (all === 0) return null;
  return element(
    "table",
    { class: "bars" },
    element("caption", {}, "Requests by the P99 of their second"),
    element(
      "tbody",
      {},
      ...bins.map(({ bound, before, n }) =>
        element(
          "tr",
          {},
          element("th", { scope: "row" }, before === 0 ? `≤ ${duration(bound)}` : `${duration(before)} – ${duration(bound)}`),
          element("td", {}, element("meter", { min: 0, max: all, value: n, "aria-label": `${count(n)} of ${count(all)}` })),
          element("td", {}, percent((n / all) * 100)),
        ),
      ),
    ),
  );
}

function listener({ edge }: Row, details: Details | null): Content[] {
  const found = details?.listeners.filter(
    (one) => one.port === edge.port && one.service === edge.server && one.service_namespace === edge.server_namespace,
  );
  if (!found || found.length === 0) return [];
  const lines = found.slice(0, 5).map((one) => element("li", {}, `${one.address}:${one.port}, ${one.backlog} of ${one.max_backlog} wait to be accepted`));
  return [section("Listener", element("ul", {}, ...lines))];
}

function backends(row: Row, { balance }: Around): Content[] {
  const group = balance.find((one) => keyOf(one) === row.key);
  if (!group || group.backends.length === 0) return [];
  const lines = group.backends.slice(0, 10).map((one) => {
    const share = one.requests_share ?? one.connections_share;
    const name = one.instance ? `${one.instance} (${one.backend})` : one.backend;
    const failed = one.failed + one.unanswered;
    return element("li", {}, `${name}: ${share === null ? "–" : percent(share * 100)}, expected ${percent(one.expected_share * 100)}${failed > 0 ? `; ${count(failed)} failed` : ""}`);
  });
  return [section("Backends", element("ul", {}, ...lines))];
}

function segment(row: Row, { segments }: Around): Content[] {
  const found = segments?.violations.find((one) => keyOf(one) === row.key);
  if (!found) return [];
  const text = `${found.client_segment} → ${found.server_segment} is not allowed: ${counted(found.connections, "connection")} since the start`;
  return [section("Segment", element("p", { "data-state": "error" }, text))];
}

function events(details: Details | null, { now }: Around): Content[] {
  if (!details) return [];
  const lines = details.events.map((event) =>
    element("li", { "data-severity": event.severity }, element("time", { datetime: event.last_seen }, clock(event.last_seen)), ` ${event.kind.replaceAll("_", " ")}: ${event.text}${event.count > 1 ? ` (${count(event.count)}×)` : ""}`),
  );
  return [section("Last events", lines.length > 0 ? element("ul", { class: "events" }, ...lines) : element("p", { class: "quiet" }, `none in the 5 min before ${clock(now)}`))];
}

/** Who waits for this edge, and who else uses its server. */
function suffer({ client, server, port }: Selection, { rows, select }: Around): Content[] {
  const once = rows.filter((row) => !row.edge.other_side && !row.isListener && !row.isIdle);
  const list = (found: Row[]) =>
    element(
      "ul",
      {},
      ...found.slice(0, 8).map((row) =>
        element(
          "li",
          {},
          element(
            "button",
            { type: "button", class: "link", onclick: () => select({ client: row.client, server: row.server, port: row.edge.port }) },
            `${SIGNS[row.state]} ${row.client} → ${row.server}:${row.edge.port}`,
          ),
          ` P99 ${quantile(row.edge.request.p99_seconds)}${row.why ? `, ${row.why}` : ""}`,
        ),
      ),
    );
  const callers = once.filter((row) => row.server === client && row.client !== client);
  const others = once.filter((row) => row.server === server && row.edge.port === port && row.client !== client);
  const calls = once.filter((row) => row.client === server && row.server !== server);
  return [
    callers.length > 0 && section(`Who waits for ${client}`, list(callers)),
    others.length > 0 && section(`Other clients of ${server}`, list(others)),
    calls.length > 0 && section(`What ${server} calls`, list(calls)),
  ];
}
