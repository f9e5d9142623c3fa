// What the agent answers, as far as the page reads it: docs of every field are in the agent's own
// OpenAPI document. All paths are relative, so that the page works behind the path of a proxy.

export type Role = "client" | "server" | "listener" | "unknown";
export type Severity = "error" | "warning" | "info";

export interface Span {
  seconds: number;
  since: string;
  until: string;
}

export interface Latency {
  count: number;
  sum_seconds: number;
  p50_seconds: number | null;
  p99_seconds: number | null;
}

export interface Cause {
  cause: string;
  text: string;
  count: number;
}

export interface Change {
  time: string;
  cause: string;
  service: string;
  service_namespace: string;
  text: string;
}

type Counts = Record<string, number>;

export interface Ends {
  client: string;
  client_namespace: string;
  server: string;
  server_namespace: string;
  port: number;
}

export interface Edge extends Ends {
  client_kind: string;
  client_source: string;
  server_kind: string;
  server_source: string;
  virtual_service?: string;
  virtual_service_namespace?: string;
  role: Role;
  other_side: boolean;
  why: Cause[];
  changes_before?: Change[];
  unverified_user?: number;
  connects: Counts;
  active: number;
  opened: number;
  closed: number;
  sent_bytes: number;
  received_bytes: number;
  retransmits: number;
  retransmits_by_phase: Counts;
  timeouts: number;
  limited_seconds: Counts;
  receive_queue_bytes: number | null;
  send_queue_bytes: number | null;
  close_wait: number | null;
  resets_sent: Counts;
  resets_received: Counts;
  aborts: Counts;
  unanswered: number;
  responses: Record<string, Counts>;
  protocols: Counts;
  listen_overflows: number;
  synack_retransmits: number;
  connect: Latency;
  rtt: Latency;
  request: Latency;
}

export interface Edges {
  timestamp: string;
  window: Span;
  edges: Edge[];
}

export interface MapEdge extends Ends {
  connections: number;
  failed: number;
  requests: number;
  unanswered: number;
  connections_per_second: number;
  requests_per_second: number;
  p50_seconds: number | null;
  p99_seconds: number | null;
  server_p99_seconds: number | null;
}

export interface ServiceMap {
  window: Span;
  nodes: { name: string; namespace: string }[];
  edges: MapEdge[];
  unattributed_connections: number;
}

export interface Finding {
  code: string;
  severity: Severity;
  title: string;
  subject: string;
  evidence: Record<string, string | number>;
  remediation: string | null;
  docs: string | null;
  since: string | null;
}

export interface Service {
  name: string;
  namespace: string;
  kind: string;
}

export interface ServiceStatus {
  service: string;
  service_namespace: string;
  kind: string;
  source: string;
  listens: string[];
  serves: string[];
  health: {
    state: "failing" | "degraded" | "ok" | "idle";
    reasons: string[];
    connects_ok: number;
    connects_failed: number;
    success_ratio: number | null;
    requests: number;
    waits: number;
    unanswered: number;
    p50_seconds: number | null;
    p99_seconds: number | null;
    resets: number;
    listen_overflows: number;
    accept_queue: { length: number; limit: number } | null;
    as_client: { connects_ok: number; connects_failed: number; resets: number };
  };
  changes_before?: Change[];
}

interface Process {
  service: Service;
  pid: number;
  command: string;
}

export interface Conflict {
  first_seen: string;
  last_seen: string;
  count: number;
  claimant: Process;
  address: string;
  port: number;
  protocol: string;
  errno: string;
  reason: string;
  holder: (Process & { since: string | null }) | null;
  next_free: number | null;
  unverified_user?: number;
  finding: Finding;
}

export interface Port {
  port: number;
  protocol: string;
  address: string;
  netns: number;
  state: string;
  holder: Process;
  since: string | null;
  sockets: number;
  backlog: number;
  max_backlog: number;
  reserved_for: string | null;
  last_conflict: string | null;
}

export interface Distribution {
  total: number;
  minimum: number;
  deviation: number | null;
  verdict: "balanced" | "unbalanced" | "too_few";
}

export interface BalanceGroup extends Ends {
  connections: Distribution;
  requests: Distribution;
  backends: {
    backend: string;
    instance?: string;
    expected_share: number;
    connections: number;
    connections_share: number | null;
    failed: number;
    requests: number;
    requests_share: number | null;
    unanswered: number;
  }[];
}

export interface Segments {
  matrix: { client_segment: string; server_segment: string; verdict: string; connections: number }[];
  violations: (Ends & { client_segment: string; server_segment: string; connections: number })[];
  events: (Ends & { first_seen: string; last_seen: string; client_segment: string; server_segment: string; connections: number })[];
}

export interface AgentEvent {
  id: number;
  cursor: number;
  first_seen: string;
  last_seen: string;
  count: number;
  severity: Severity;
  kind: string;
  cause: string;
  text: string;
  client: Service | null;
  server: Service | null;
  holder: Service | null;
  port: number | null;
}

export interface EdgeTimeouts extends Ends {
  verdict: string;
  server_timeout_seconds: number | null;
  client_timeout_seconds: number | null;
  closed_by_server: { count: number };
  closed_by_client: { count: number };
  reuse: { count: number; longest_seconds: number | null };
  idle_reuse_resets: number;
  finding?: Finding;
}

export interface Point {
  since: string;
  seconds: number;
  connects_ok: number;
  connects_failed: number;
  requests: number;
  unanswered: number;
  p50_seconds: number | null;
  p99_seconds: number | null;
  resets: number;
  retransmits: number;
  sent_bytes: number;
  received_bytes: number;
}

export interface Series {
  client: string;
  client_namespace: string;
  server: string;
  server_namespace: string;
  port: number;
  role: Role;
  points: Point[];
}

export interface History {
  timestamp: string;
  window: Span;
  series: Series[];
}

export interface Status {
  timestamp: string;
  version: string;
  kernel: string;
  edges: number;
  collection_seconds: number;
  findings: Finding[];
  hooks: { name: string; attached: boolean; observes: string; reason: string | null; runs: number }[];
  ledger: { class: string; seen: number; exported: number; lost: Counts }[];
  tables: { name: string; entries: number; capacity: number }[];
  name_sources: { name: string; state: string; entries: number; queries: number; errors: number; detail: string | null }[];
  memory: { limit_bytes: number | null; used_bytes: number } | null;
}

/** The agent said no, and why. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** An answer of the agent; `query` is encoded here. */
export async function ask<T>(path: string, query: Record<string, string | number> = {}, signal?: AbortSignal): Promise<T> {
  const pairs = Object.entries(query).map(([name, value]) => [name, String(value)]);
  const text = pairs.length > 0 ? `?${new URLSearchParams(pairs)}` : "";
  const response = await fetch(`api/v1/${path}${text}`, { signal: signal ?? null });
  if (!response.ok) {
    const body: { error?: string } = await response.json().catch(() => ({}));
    throw new Refused(response.status, body.error ?? `${response.status} ${response.statusText}`);
  }
  return response.json();
}

/** In place of what the agent refuses: a snapshot does not have everything. */
export function ifRefused<T>(instead: T): (error: unknown) => T {
  return (error) => {
    if (error instanceof Refused) return instead;
    throw error;
  };
}
