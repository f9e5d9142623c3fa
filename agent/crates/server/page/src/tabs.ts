// The tables: one list of columns each.

import type { AgentEvent, BalanceGroup, Conflict, EdgeTimeouts, Port, Series, ServiceStatus, Segments, Status } from "./api.ts";
import { sparkline } from "./chart.ts";
import type { Facts } from "./filter.ts";
import { clientOf, facts as edgeFacts, ORDER, serverOf, SIGNS, worstFirst, type Row, type State } from "./edges.ts";
import type { Column, Kind } from "./table.ts";
import { bytes, clock, count, duration, fullName, percent, quantile, rate } from "./text.ts";

const by = <T>(value: (row: T) => string | number) => (a: T, b: T) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0);

function text<T>(id: string, title: string, value: (row: T) => string, more: Partial<Column<T>> = {}): Column<T> {
  return { id, title, isText: true, value, cell: value, ...more };
}

function number<T>(id: string, title: string, value: (row: T) => number | null, write: (n: number) => string, more: Partial<Column<T>> = {}): Column<T> {
  return { id, title, value, cell: (row) => orDash(value(row), write), ...more };
}

function orDash(n: number | null, write: (n: number) => string): string {
  return n === null ? "–" : write(n);
}

const bad = (is: boolean) => (is ? "bad" : "");

/** Edges; `series` has the last minute of the busiest, by key. */
export function edges(series: Map<string, Series>, until: () => number, open: (row: Row) => void, isSelected: (row: Row) => boolean): Kind<Row> {
  const per = (at: Series["points"][number]) => (at.seconds > 0 ? (at.requests + at.connects_ok) / at.seconds : 0);
  return {
    columns: [
      { id: "state", title: "State", hint: "✗ something fails, ! look at it, ✓ traffic, · idle", isText: true, value: (row) => ORDER[row.state], cell: (row) => SIGNS[row.state] },
      text("client", "Client", (row) => row.client),
      text("server", "Server", (row) => row.server),
      number("port", "Port", (row) => row.edge.port, String),
      text("role", "Side", (row) => row.edge.role, { rank: 2, hint: "the side that counted" }),
      number("req", "Req/s", (row) => row.requests, rate, { hint: "requests per second" }),
      number("p50", "P50", (row) => row.edge.request.p50_seconds, quantile, { rank: 1, hint: "median request latency" }),
      number("p99", "P99", (row) => row.edge.request.p99_seconds, quantile, { hint: "request latency that 99 % of requests stay below" }),
      number("err", "Err%", (row) => row.errors, (n) => rate(n), { hint: "share of connects and requests that failed", kind: (row) => bad((row.errors ?? 0) > 0) }),
      number("unans", "Unans", (row) => row.edge.unanswered, count, { rank: 2, hint: "requests without a response", kind: (row) => bad(row.edge.unanswered > 0) }),
      number("conn", "Conn/s", (row) => row.connects, rate, { rank: 2, hint: "attempts to connect per second" }),
      number("fail", "Fail/s", (row) => row.failed, rate, { rank: 2, hint: "failed attempts to connect per second", kind: (row) => bad(row.failed > 0) }),
      text("why", "Why", (row) => row.why, { kind: (row) => (row.state === "error" ? "bad" : "") }),
      number("retr", "Retr%", (row) => row.retransmits, (n) => rate(n), { rank: 1, hint: "share of segments that were retransmitted" }),
      number("rtt", "RTT", (row) => row.edge.rtt.p50_seconds, quantile, { rank: 2, hint: "median round-trip time" }),
      number("active", "Open", (row) => row.edge.active, count, { rank: 2, hint: "open connections, now" }),
      number("sent", "Sent", (row) => row.edge.sent_bytes, bytes, { rank: 2 }),
      number("received", "Received", (row) => row.edge.received_bytes, bytes, { rank: 2 }),
      {
        id: "spark",
        title: "60 s",
        hint: "requests and connects over the last minute, of the busiest edges",
        rank: 1,
        value: (row) => row.requests,
        cell: (row) => {
          const points = series.get(`${row.key} ${row.edge.role}`)?.points;
          return points ? sparkline(points, per, until(), 60, "requests and connects, last 60 s") : "";
        },
      },
    ],
    key: (row) => `${row.key} ${row.edge.role} ${row.edge.unverified_user ?? ""}`,
    usual: worstFirst,
    label: (row) => `${row.state}: details of ${row.client} to ${row.server}, port ${row.edge.port}`,
    open,
    isSelected,
    state: (row) => row.state,
    empty: "No edge here: nothing connected in this window, or the filter leaves nothing.",
  };
}

const HEALTH: Record<string, State> = { failing: "error", degraded: "warning", ok: "ok", idle: "idle" };
const stateOf = (row: ServiceStatus): State => HEALTH[row.health.state] ?? "idle";
const nameOf = (row: ServiceStatus) => fullName(row.service_namespace, row.service);

export function services(open: (row: ServiceStatus) => void): Kind<ServiceStatus> {
  return {
    columns: [
      { id: "state", title: "State", isText: true, value: (row) => ORDER[stateOf(row)], cell: (row) => SIGNS[stateOf(row)] },
      text("service", "Service", nameOf),
      text("kind", "Kind", (row) => row.kind.replaceAll("_", " "), { rank: 1 }),
      text("ports", "Ports", (row) => [...new Set([...row.listens, ...row.serves])].slice(0, 6).join(" ")),
      text("health", "Health", (row) => row.health.state),
      text("why", "Why", (row) => row.health.reasons.map((reason) => reason.replaceAll("_", " ")).join(", "), { kind: (row) => bad(stateOf(row) === "error") }),
      number("requests", "Requests", (row) => row.health.requests, count, { hint: "requests that it answered in the window" }),
      number("p50", "P50", (row) => row.health.p50_seconds, quantile, { rank: 1 }),
      number("p99", "P99", (row) => row.health.p99_seconds, quantile),
      number("failed", "Failed", (row) => row.health.connects_failed, count, { hint: "failed connects to it", kind: (row) => bad(row.health.connects_failed > 0) }),
      number("unans", "Unans", (row) => row.health.unanswered, count, { kind: (row) => bad(row.health.unanswered > 0) }),
      number("resets", "Resets", (row) => row.health.resets, count, { rank: 1 }),
      number("backlog", "Backlog", (row) => row.health.accept_queue?.length ?? null, count, { rank: 1, hint: "connections that wait in its fullest accept queue" }),
    ],
    key: nameOf,
    usual: (a, b) => ORDER[stateOf(a)] - ORDER[stateOf(b)] || b.health.requests - a.health.requests || by(nameOf)(a, b),
    label: (row) => `${row.health.state}: edges of ${nameOf(row)}`,
    open,
    state: stateOf,
    empty: "No service here.",
  };
}

const holder = (row: Port) => fullName(row.holder.service.namespace, row.holder.service.name);

export function ports(): Kind<Port> {
  return {
    columns: [
      number("port", "Port", (row) => row.port, String),
      text("protocol", "Protocol", (row) => row.protocol),
      text("address", "Address", (row) => row.address),
      text("state", "State", (row) => row.state.replaceAll("_", " ")),
      text("holder", "Holder", holder),
      text("process", "Process", (row) => `${row.holder.command}${row.holder.pid > 0 ? ` (${row.holder.pid})` : ""}`, { rank: 1 }),
      number("backlog", "Backlog", (row) => (row.max_backlog > 0 ? row.backlog : null), count, { kind: (row) => bad(row.max_backlog > 0 && row.backlog > row.max_backlog) }),
      number("limit", "Limit", (row) => (row.max_backlog > 0 ? row.max_backlog : null), count, { rank: 2 }),
      text("reserved", "Reserved for", (row) => row.reserved_for ?? "", { rank: 1 }),
      number("netns", "Network namespace", (row) => row.netns, String, { rank: 2 }),
    ],
    key: (row) => `${row.netns} ${row.protocol} ${row.address} ${row.port} ${holder(row)} ${row.state}`,
    usual: by((row) => row.port * 1e10 + row.netns),
    empty: "No port is bound here.",
  };
}

const claimant = (row: Conflict) => fullName(row.claimant.service.namespace, row.claimant.service.name);

export function conflicts(): Kind<Conflict> {
  return {
    columns: [
      text("last", "Last", (row) => row.last_seen, { cell: (row) => clock(row.last_seen) }),
      number("count", "Times", (row) => row.count, count),
      text("claimant", "Claimant", claimant),
      text("address", "Address", (row) => `${row.address}:${row.port}/${row.protocol}`),
      text("errno", "Errno", (row) => row.errno),
      text("holder", "Holder", (row) => (row.holder ? fullName(row.holder.service.namespace, row.holder.service.name) : "")),
      text("what", "What and how to fix it", (row) => [row.finding.title, row.finding.remediation].filter(Boolean).join("; fix: "), { kind: () => "long" }),
    ],
    key: (row) => `${row.first_seen} ${claimant(row)} ${row.address} ${row.port} ${row.protocol} ${row.errno}`,
    usual: (a, b) => by<Conflict>((row) => row.last_seen)(b, a),
    state: () => "error",
    empty: "No bind failed.",
  };
}

export interface BackendRow {
  group: BalanceGroup;
  backend: BalanceGroup["backends"][number];
}

export function balance(): Kind<BackendRow> {
  const share = (n: number | null) => orDash(n, (n) => percent(n * 100));
  const verdict = ({ group }: BackendRow) => [group.requests.verdict, group.connections.verdict].find((one) => one !== "too_few") ?? "too_few";
  return {
    columns: [
      text("client", "Client", ({ group }) => clientOf(group)),
      text("server", "Server", ({ group }) => `${serverOf(group)}:${group.port}`),
      text("backend", "Backend", ({ backend }) => backend.instance ?? backend.backend),
      number("expected", "Expected", ({ backend }) => backend.expected_share, (n) => share(n)),
      number("requests", "Requests", ({ backend }) => backend.requests_share, (n) => share(n)),
      number("connections", "Connections", ({ backend }) => backend.connections_share, (n) => share(n)),
      number("failed", "Failed", ({ backend }) => backend.failed + backend.unanswered, count, { kind: ({ backend }) => bad(backend.failed + backend.unanswered > 0) }),
      text("verdict", "Verdict", (row) => verdict(row).replaceAll("_", " "), { kind: (row) => bad(verdict(row) === "unbalanced") }),
    ],
    key: ({ group, backend }) => JSON.stringify([clientOf(group), serverOf(group), group.port, backend.backend]),
    usual: (a, b) => Number(verdict(b) === "unbalanced") - Number(verdict(a) === "unbalanced") || by<BackendRow>(({ group, backend }) => `${serverOf(group)} ${clientOf(group)} ${backend.backend}`)(a, b),
    state: (row) => (verdict(row) === "unbalanced" ? "warning" : "ok"),
    empty: "No server with several backends had traffic in this window.",
  };
}

export type SegmentRow = Segments["matrix"][number];

export function segments(): Kind<SegmentRow> {
  return {
    columns: [
      text("client", "Client segment", (row) => row.client_segment),
      text("server", "Server segment", (row) => row.server_segment),
      text("verdict", "Verdict", (row) => row.verdict.replaceAll("_", " "), { kind: (row) => bad(row.verdict === "violation" && row.connections > 0) }),
      number("connections", "Connections", (row) => row.connections, count, { hint: "since the agent started" }),
    ],
    key: (row) => JSON.stringify([row.client_segment, row.server_segment]),
    usual: (a, b) => Number(isBroken(b)) - Number(isBroken(a)) || b.connections - a.connections || by<SegmentRow>((row) => `${row.client_segment} ${row.server_segment}`)(a, b),
    state: (row) => (isBroken(row) ? "error" : row.connections > 0 ? "ok" : "idle"),
    empty: "No segments are declared ([segments.NAME] in the configuration file).",
  };
}

const isBroken = (row: SegmentRow) => row.verdict === "violation" && row.connections > 0;
const SEVERITIES: Record<string, State> = { error: "error", warning: "warning", info: "ok" };
const named = (service: AgentEvent["server"]) => (service ? fullName(service.namespace, service.name) : "");

export function events(): Kind<AgentEvent> {
  return {
    columns: [
      { id: "state", title: "State", isText: true, value: (row) => ORDER[SEVERITIES[row.severity] ?? "ok"], cell: (row) => SIGNS[SEVERITIES[row.severity] ?? "ok"] },
      text("last", "Last", (row) => row.last_seen, { cell: (row) => clock(row.last_seen) }),
      number("count", "Times", (row) => row.count, count),
      text("kind", "Kind", (row) => row.kind.replaceAll("_", " ")),
      text("client", "Client", (row) => named(row.client)),
      text("server", "Server", (row) => named(row.server)),
      number("port", "Port", (row) => row.port, String),
      text("what", "What", (row) => [row.text, row.holder ? `held by ${named(row.holder)}` : ""].filter(Boolean).join(", "), { kind: (row) => `long ${bad(row.severity === "error")}` }),
    ],
    key: (row) => String(row.id),
    usual: (a, b) => b.cursor - a.cursor,
    state: (row) => SEVERITIES[row.severity] ?? "ok",
    empty: "No event in this window.",
  };
}

export function timeouts(): Kind<EdgeTimeouts> {
  const seconds = (n: number | null) => orDash(n, duration);
  return {
    columns: [
      text("client", "Client", clientOf),
      text("server", "Server", (row) => `${serverOf(row)}:${row.port}`),
      text("verdict", "Verdict", (row) => row.verdict.replaceAll("_", " "), { kind: (row) => bad(row.verdict === "mismatch") }),
      number("by-server", "Server closes after", (row) => row.server_timeout_seconds, (n) => seconds(n)),
      number("by-client", "Client closes after", (row) => row.client_timeout_seconds, (n) => seconds(n)),
      number("reuse", "Longest reuse", (row) => row.reuse.longest_seconds, (n) => seconds(n)),
      number("resets", "Idle reuse resets", (row) => row.idle_reuse_resets, count, { kind: (row) => bad(row.idle_reuse_resets > 0) }),
    ],
    key: (row) => JSON.stringify([clientOf(row), serverOf(row), row.port]),
    usual: (a, b) => Number(b.verdict === "mismatch") - Number(a.verdict === "mismatch") || by<EdgeTimeouts>((row) => `${serverOf(row)} ${clientOf(row)}`)(a, b),
    state: (row) => (row.verdict === "mismatch" ? "warning" : "ok"),
    empty: "No idle connections were closed or used again since the start.",
  };
}

export interface AgentRow {
  part: string;
  name: string;
  state: State;
  value: string;
  detail: string;
}

/** The agent itself, as one list. */
export function agentRows(status: Status): AgentRow[] {
  const lost = (counts: Record<string, number>) => Object.entries(counts).map(([why, n]) => `${count(n)} ${why.replaceAll("_", " ")}`);
  return [
    ...status.findings.map((one): AgentRow => ({ part: "finding", name: one.code, state: one.severity === "info" ? "idle" : (SEVERITIES[one.severity] ?? "ok"), value: one.title, detail: one.remediation ? `fix: ${one.remediation}` : Object.values(one.evidence).join(", ") })),
    { part: "agent", name: "version", state: "ok", value: status.version, detail: `kernel ${status.kernel}` },
    { part: "agent", name: "collection", state: "ok", value: duration(status.collection_seconds), detail: `${count(status.edges)} edges` },
    ...status.hooks.map((one): AgentRow => ({ part: "hook", name: one.name, state: one.attached ? "ok" : "idle", value: one.attached ? `${count(one.runs)} runs` : "not attached", detail: one.reason ?? one.observes })),
    ...status.ledger.map((one): AgentRow => ({ part: "events", name: one.class, state: Object.keys(one.lost).length > 0 ? "warning" : "ok", value: `${count(one.exported)} exported`, detail: lost(one.lost).map((text) => `lost: ${text}`).join(", ") })),
    ...status.tables.map((one): AgentRow => ({ part: "table", name: one.name, state: one.entries >= one.capacity ? "warning" : "ok", value: `${count(one.entries)} of ${count(one.capacity)}`, detail: "" })),
    ...status.name_sources.map((one): AgentRow => ({ part: "names", name: one.name, state: one.state === "up" ? "ok" : "idle", value: `${one.state}, ${count(one.entries)} names`, detail: one.detail ?? (one.errors > 0 ? `${count(one.errors)} errors` : "") })),
  ];
}

export function agent(): Kind<AgentRow> {
  return {
    columns: [
      { id: "state", title: "State", isText: true, value: (row) => ORDER[row.state], cell: (row) => SIGNS[row.state] },
      text("part", "Part", (row) => row.part),
      text("name", "Name", (row) => row.name),
      text("value", "Value", (row) => row.value, { kind: () => "long" }),
      text("detail", "Detail", (row) => row.detail, { kind: () => "long" }),
    ],
    key: (row) => `${row.part} ${row.name} ${row.part === "finding" ? row.value : ""}`,
    usual: (a, b) => ORDER[a.state === "ok" ? "idle" : a.state] - ORDER[b.state === "ok" ? "idle" : b.state] || 0,
    state: (row) => row.state,
    empty: "Nothing here.",
  };
}

// Rows of every tab for filters.

export const factsOf = {
  edges: edgeFacts,
  services: (row: ServiceStatus): Facts => ({
    texts: { service: [nameOf(row), row.service], ns: [row.service_namespace], why: row.health.reasons, state: [stateOf(row), row.health.state], kind: [row.kind] },
    numbers: { p50: row.health.p50_seconds, p99: row.health.p99_seconds, unans: row.health.unanswered },
  }),
  ports: (row: Port): Facts => ({
    texts: { service: [holder(row), row.holder.service.name], server: [holder(row), row.holder.service.name], ns: [row.holder.service.namespace], state: [row.state], kind: [row.protocol] },
    numbers: { port: row.port },
  }),
  conflicts: (row: Conflict): Facts => ({
    texts: { service: [claimant(row), row.claimant.service.name], server: [claimant(row), row.claimant.service.name], ns: [row.claimant.service.namespace], why: [row.errno, row.finding.title], kind: [row.protocol] },
    numbers: { port: row.port, count: row.count },
  }),
  balance: ({ group, backend }: BackendRow): Facts => ({
    texts: { client: [clientOf(group), group.client], server: [serverOf(group), group.server], service: [clientOf(group), group.client, serverOf(group), group.server, backend.instance ?? backend.backend], ns: [group.client_namespace, group.server_namespace] },
    numbers: { port: group.port },
  }),
  segments: (row: SegmentRow): Facts => ({ texts: { client: [row.client_segment], server: [row.server_segment], state: [row.verdict] }, numbers: {} }),
  events: (row: AgentEvent): Facts => {
    const of = (service: AgentEvent["server"]) => (service ? [named(service), service.name] : []);
    return {
      texts: { client: of(row.client), server: of(row.server), service: [...of(row.client), ...of(row.server), ...of(row.holder)], ns: [row.client?.namespace ?? "", row.server?.namespace ?? ""], why: [row.cause, row.text], state: [row.severity], kind: [row.kind] },
      numbers: { port: row.port, count: row.count },
    };
  },
  timeouts: (row: EdgeTimeouts): Facts => ({
    texts: { client: [clientOf(row), row.client], server: [serverOf(row), row.server], service: [clientOf(row), row.client, serverOf(row), row.server], ns: [row.client_namespace, row.server_namespace], state: [row.verdict] },
    numbers: { port: row.port },
  }),
  agent: (row: AgentRow): Facts => ({ texts: { kind: [row.part], service: [row.name], why: [row.value, row.detail], state: [row.state] }, numbers: {} }),
};
