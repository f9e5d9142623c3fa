// What needs attention, worst first: causes of edges, and findings of the agent. One cause is one
// line; what follows from it is not repeated.

import type { Conflict, Finding, Segments, ServiceStatus, EdgeTimeouts, Change } from "./api.ts";
import { clientOf, keyOf, ORDER, serverOf, sum, type Context, type Row, type State } from "./edges.ts";
import { ago, counted, fullName, percent, quantile } from "./text.ts";
import type { Selection } from "./view.ts";

export interface Problem {
  state: State;
  /** What it is about, and what is wrong with it. */
  subject: string;
  text: string;
  /** More facts: what changed before, how to fix it. */
  note: string;
  /** The edge to look at. */
  edge: Selection | null;
  /** Services to ask `portolan diagnose` about. */
  diagnose: string[] | null;
  code: string | null;
  /** How often, to order those of one state; negative is monitoring, behind all others. */
  count: number;
}

export interface Sources {
  now: string;
  since: string;
  context: Context;
  rows: Row[];
  /** Rows whose problems are wanted. */
  isWanted: (row: Row) => boolean;
  conflicts: Conflict[];
  segments: Segments | null;
  timeouts: EdgeTimeouts[];
  findings: Finding[];
}

const REASONS: Record<string, string> = {
  connects_fail: "connects to it fail",
  unanswered: "requests are not answered",
  errors: "requests are answered with errors",
  resets: "connections are reset",
  aborts: "connections die",
  listen_drops: "its listeners drop connection requests",
  own_connects_fail: "its own connects fail on its side",
};

/** The problems of a moment, and how many of edges are left out because nobody wants them. */
export function problems(sources: Sources): { found: Problem[]; others: number } {
  const { rows, context, timeouts, findings } = sources;
  const all = rows.filter((row) => row.edge.why.length > 0 && !row.edge.other_side && !(row.isListener && row.edge.port === 0));
  const wrong = all.filter(sources.isWanted);
  // Monitoring and the agent itself are on no map: what fails there is an edge above, or nothing.
  const onMap = new Set(rows.filter((row) => context.onMap.has(row.key)).flatMap((row) => [row.client, row.server]));
  const applications = [...context.services.values()].filter((service) => onMap.has(nameOf(service)));
  const explained = new Set(all.flatMap((row) => (row.state === "error" ? [row.server] : [])));
  const found = [
    ...wrong.map((row) => ofEdge(row, sources)),
    ...sources.conflicts.map((conflict) => ofConflict(conflict, sources.now)),
    ...ofSegments(sources),
    ...applications.flatMap((service) => ofService(service, explained, sources)),
    ...slow(applications, sources),
    ...uneven(context),
    ...timeouts.flatMap((edge) => (edge.finding ? [ofFinding(edge.finding, selectionOf(edge))] : [])),
    ...findings.filter((finding) => finding.severity !== "info").map((finding) => ofFinding(finding, null)),
  ];
  found.sort((a, b) => ORDER[a.state] - ORDER[b.state] || b.count - a.count);
  return { found, others: all.length - wrong.length };
}

export function selectionOf(ends: Parameters<typeof clientOf>[0]): Selection {
  return { client: clientOf(ends), server: serverOf(ends), port: ends.port };
}

/** What changed before something went wrong. */
export function changesText(changes: Change[] | undefined, now: string): string {
  const words = (changes ?? []).slice(0, 3);
  return words.map((one) => `${fullName(one.service_namespace, one.service)} ${one.text} ${ago(one.time, now)}`).join("; ");
}

function ofEdge(row: Row, { now, rows }: Sources): Problem {
  const { edge, client, server } = row;
  const facts = [row.why];
  const attempts = sum(edge.connects);
  // Bytes in a queue are not so many failures.
  const times = edge.why.reduce((n, cause) => n + (cause.cause.endsWith("_queue") ? 1 : cause.count), 0);
  if (edge.why.some((cause) => cause.cause.startsWith("connect_")) && attempts > 0) facts.push(`of ${counted(attempts, "connect")}`);
  if (row.retransmits !== null && edge.retransmits > 0) facts.push(`${percent(row.retransmits)} of segments retransmitted`);
  const other = rows.find(({ key, edge: it }) => key === row.key && it.other_side);
  if (edge.request.p99_seconds !== null && other?.edge.request.p99_seconds != null) {
    facts.push(`P99 ${quantile(edge.request.p99_seconds)}, at the server ${quantile(other.edge.request.p99_seconds)}`);
  }
  return {
    state: row.state,
    subject: row.isListener ? `${server}:${edge.port}` : `${client} → ${server}:${edge.port}`,
    text: facts.join("; "),
    note: changesText(edge.changes_before, now),
    edge: { client: row.isListener ? "any" : client, server, port: edge.port },
    diagnose: row.isListener ? [server] : [client, `${server}:${edge.port}`],
    code: null,
    count: row.isApart ? -1 / times : times,
  };
}

function ofConflict(conflict: Conflict, now: string): Problem {
  const problem = { ...ofFinding(conflict.finding, null), count: conflict.count };
  return { ...problem, note: [`last ${ago(conflict.last_seen, now)}`, problem.note].filter(Boolean).join("; ") };
}

function ofSegments({ segments, since }: Sources): Problem[] {
  const latest = (segments?.events ?? []).filter((event) => Date.parse(event.last_seen) >= Date.parse(since));
  const byEdge = new Map(latest.map((event) => [keyOf(event), event]));
  return [...byEdge.entries()].map(([key, event]) => ({
    state: "error",
    subject: `${clientOf(event)} → ${serverOf(event)}:${event.port}`,
    text: `not allowed: segment ${event.client_segment} → ${event.server_segment}`,
    note: counted(latest.filter((one) => keyOf(one) === key).reduce((n, one) => n + one.connections, 0), "connection"),
    edge: selectionOf(event),
    diagnose: null,
    code: null,
    count: event.connections,
  }));
}

/** The health of a service, if no edge to it says the same; that it is slow is said elsewhere. */
function ofService(status: ServiceStatus, explained: Set<string>, { now }: Sources): Problem[] {
  const name = nameOf(status);
  const { state, reasons, accept_queue } = status.health;
  const kept = reasons.filter((reason) => reason !== "slow" && (reason === "accept_queue_full" || !explained.has(name)));
  if (kept.length === 0) return [];
  const words = kept.map((reason) =>
    reason === "accept_queue_full" && accept_queue ? `its accept queue is full (${accept_queue.length} of ${accept_queue.limit})` : (REASONS[reason] ?? reason),
  );
  const problem: Problem = {
    state: state === "failing" && !explained.has(name) ? "error" : "warning",
    subject: name,
    text: words.join(", "),
    note: changesText(status.changes_before, now),
    edge: null,
    diagnose: [name],
    code: null,
    count: 1,
  };
  return [problem];
}

/** Slow applications, those that call no slow one first; who waits for them is in their note. */
function slow(applications: ServiceStatus[], { now, rows }: Sources): Problem[] {
  const isSlow = ({ health }: ServiceStatus) => health.reasons.includes("slow");
  const all = new Map(applications.filter(isSlow).map((status) => [nameOf(status), status]));
  const clients = new Map<string, Set<string>>();
  const calls = new Set<string>();
  for (const { client, server } of rows) {
    if (client === server || !all.has(client) || !all.has(server)) continue;
    clients.set(server, (clients.get(server) ?? new Set()).add(client));
    calls.add(client);
  }
  const before = (name: string, found: Set<string>): Set<string> => {
    for (const client of clients.get(name) ?? []) {
      if (!found.has(client)) before(client, found.add(client));
    }
    return found;
  };
  const ends = [...all].filter(([name]) => !calls.has(name));
  // In a circle everyone calls someone.
  return (ends.length > 0 ? ends : [...all]).map(([name, status]) => {
    const waiting = [...before(name, new Set([name]))].filter((other) => other !== name);
    const note = [waiting.length > 0 ? `also slow, and waiting for it: ${waiting.join(", ")}` : "", changesText(status.changes_before, now)];
    return {
      state: "warning",
      subject: name,
      text: `slow: P99 ${quantile(status.health.p99_seconds)}, ${counted(status.health.requests, "request")}`,
      note: note.filter(Boolean).join("; "),
      edge: null,
      diagnose: [name],
      code: null,
      count: status.health.requests,
    };
  });
}

const nameOf = (status: ServiceStatus) => fullName(status.service_namespace, status.service);

function uneven({ uneven }: Context): Problem[] {
  return [...uneven.values()].map((group) => {
    const share = (backend: (typeof group.backends)[number]) =>
      (group.requests.verdict === "unbalanced" ? backend.requests_share : backend.connections_share) ?? 0;
    const off = (backend: (typeof group.backends)[number]) => Math.abs(share(backend) - backend.expected_share);
    const worst = group.backends.toSorted((a, b) => off(b) - off(a))[0];
    const what = group.requests.verdict === "unbalanced" ? "requests" : "connections";
    const text = worst
      ? `${worst.instance ?? worst.backend} gets ${percent(share(worst) * 100)} of the ${what}, ${percent(worst.expected_share * 100)} expected`
      : "load is uneven";
    return {
      state: "warning",
      subject: `${clientOf(group)} → ${serverOf(group)}:${group.port}`,
      text,
      note: "",
      edge: selectionOf(group),
      diagnose: null,
      code: null,
      count: 1,
    };
  });
}

function ofFinding(finding: Finding, edge: Selection | null): Problem {
  return {
    state: finding.severity === "error" ? "error" : "warning",
    subject: "",
    text: finding.title,
    note: finding.remediation ? `fix: ${finding.remediation}` : "",
    edge,
    diagnose: null,
    code: finding.code,
    count: 1,
  };
}
