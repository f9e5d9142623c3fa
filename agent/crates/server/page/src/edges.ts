// Edges of the agent as rows: their rates and shares, and their state. The state repeats what the
// agent says (`why`, and the health of the server over the same window): nothing is judged here.

import type { BalanceGroup, Cause, Edge, Ends, ServiceStatus } from "./api.ts";
import type { Facts } from "./filter.ts";
import { bytes, count, fullName } from "./text.ts";

/** From bad to good. */
export type State = "error" | "warning" | "ok" | "idle";

export const SIGNS: Record<State, string> = { error: "✗", warning: "!", ok: "✓", idle: "·" };
export const ORDER: Record<State, number> = { error: 0, warning: 1, ok: 2, idle: 3 };

/** Bytes of payload in a segment, as `portolan check` counts them. */
const SEGMENT_BYTES = 1448;

export interface Row {
  edge: Edge;
  /** Both ends with their namespaces. */
  client: string;
  server: string;
  key: string;
  state: State;
  /** In words; empty if there is nothing to say. */
  why: string;
  /** Monitoring or the host's own services: not on the agent's map of applications. */
  isApart: boolean;
  /** A listener, or resets without a connection. */
  isListener: boolean;
  isIdle: boolean;
  /** Per second. */
  requests: number;
  connects: number;
  failed: number;
  /** Percent; null without anything that could fail. */
  errors: number | null;
  retransmits: number | null;
}

export const clientOf = (ends: Ends): string => fullName(ends.client_namespace, ends.client);
export const serverOf = (ends: Ends): string => fullName(ends.server_namespace, ends.server);
export const keyOf = (ends: Ends): string => JSON.stringify([clientOf(ends), serverOf(ends), ends.port]);

export function sum(counts: Record<string, number>): number {
  return Object.values(counts).reduce((a, b) => a + b, 0);
}

/** Attempts to connect that failed. */
export function failedConnects(edge: Edge): number {
  return sum(edge.connects) - (edge.connects.ok ?? 0);
}

/** Resets of connections: one that answered a connect is a failed connect. */
export function resets(edge: Edge): number {
  const all = [...Object.entries(edge.resets_sent), ...Object.entries(edge.resets_received)];
  return all.reduce((n, [cause, more]) => (cause === "no_listener" || cause === "unused" ? n : n + more), 0);
}

/** Queues are in bytes, everything else is counted. */
export function causeText({ cause, text, count: n }: Cause): string {
  return `${cause.endsWith("_queue") ? bytes(n) : count(n)} ${text}`;
}

/** What programs do on purpose: proxies that cut idle connections, servers that stop. */
const isMeant = ({ cause }: Cause) => cause === "reset_linger" || cause.endsWith("_stopping");

/** What belongs to the same window as the edges. */
export interface Context {
  seconds: number;
  /** Keys of the edges on the agent's map of applications. */
  onMap: Set<string>;
  /** Health by full name. */
  services: Map<string, ServiceStatus>;
  /** Uneven load by key. */
  uneven: Map<string, BalanceGroup>;
}

export function row(edge: Edge, context: Context): Row {
  const { seconds, onMap, services } = context;
  const per = (n: number) => (seconds > 0 ? n / seconds : 0);
  const failed = failedConnects(edge);
  const attempts = sum(edge.connects);
  const tried = attempts + edge.request.count + edge.unanswered;
  const segments = edge.retransmits + edge.sent_bytes / SEGMENT_BYTES + edge.request.count;
  const isListener = edge.role === "listener" || (edge.client === "any" && edge.client_source === "unknown");
  const isIdle = edge.active + edge.opened + edge.closed + edge.request.count + edge.unanswered + attempts + resets(edge) === 0;
  const key = keyOf(edge);
  const health = services.get(serverOf(edge))?.health;
  const isSlow = health?.reasons.includes("slow") === true && edge.role === "client" && edge.request.count > 0;
  const words = edge.why.map(causeText);
  if (edge.unverified_user !== undefined) words.unshift(`unverified (user ${edge.unverified_user})`);
  if (edge.why.length === 0 && isSlow) words.push("server is slow");
  if (context.uneven.has(key)) words.push("uneven load");
  const isNoConnection = isListener && edge.port === 0;
  return {
    edge,
    client: isListener ? (isNoConnection ? "(resets without a connection)" : "(listener)") : clientOf(edge),
    server: serverOf(edge),
    key,
    state: state(edge, isNoConnection, isSlow || context.uneven.has(key), isIdle),
    why: words.join(", "),
    isApart: !isListener && !onMap.has(key),
    isListener,
    isIdle,
    requests: per(edge.request.count),
    connects: per(attempts),
    failed: per(failed),
    errors: tried > 0 ? Math.min(((failed + edge.unanswered + errorResponses(edge)) / tried) * 100, 100) : null,
    retransmits: segments > 0 && edge.sent_bytes + edge.retransmits > 0 ? (edge.retransmits / segments) * 100 : null,
  };
}

/** Responses that are errors of the server. */
function errorResponses(edge: Edge): number {
  return Object.values(edge.responses).reduce((all, counts) => all + (counts["5xx"] ?? 0) + (counts["error"] ?? 0), 0);
}

function state(edge: Edge, isNoConnection: boolean, isWarned: boolean, isIdle: boolean): State {
  if (!isNoConnection && edge.unverified_user === undefined && edge.why.some((cause) => !isMeant(cause))) return "error";
  if (edge.why.length > 0 || isWarned) return "warning";
  return isIdle ? "idle" : "ok";
}

/** What is wrong first, then what is busiest. */
export function worstFirst(a: Row, b: Row): number {
  return ORDER[a.state] - ORDER[b.state] || b.requests + b.connects - (a.requests + a.connects) || (a.key < b.key ? -1 : 1);
}

/** The row for filters. */
export function facts({ edge, client, server, state, why, ...numbers }: Row): Facts {
  const both = (full: string, name: string) => [full, name];
  const [clients, servers] = [both(client, edge.client), both(server, edge.server)];
  return {
    texts: {
      client: clients,
      server: servers,
      service: [...clients, ...servers],
      ns: [edge.client_namespace, edge.server_namespace],
      role: [edge.role],
      why: [why, ...edge.why.map((cause) => cause.cause)],
      state: [state],
    },
    numbers: {
      port: edge.port,
      req: numbers.requests,
      p50: edge.request.p50_seconds,
      p99: edge.request.p99_seconds,
      err: numbers.errors,
      unans: edge.unanswered,
      conn: numbers.connects,
      fail: numbers.failed,
      retr: numbers.retransmits,
      rtt: edge.rtt.p50_seconds,
      active: edge.active,
    },
  };
}
