// What the agent last answered, and when it is asked: often for what is on the screen, seldom for
// the rest, and not at all while nobody looks.

import {
  ask,
  Refused,
  type AgentEvent,
  type BalanceGroup,
  type Conflict,
  type Edges,
  type EdgeTimeouts,
  type History,
  type Port,
  type Segments,
  type ServiceMap,
  type ServiceStatus,
  type Status,
} from "./api.ts";
import type { View } from "./view.ts";

/** Between two questions, and so many times as long as the answers took: a large host is asked less. */
const EVERY_MS = 2000;
const SHARE = 5;
/** Every how many rounds the rest is asked for. */
const SELDOM = 3;
/** Edges with a line in the table. */
const LINES = 40;

export interface Answers {
  edges: Edges;
  map: ServiceMap;
  services: ServiceStatus[];
  status: Status;
  conflicts: Conflict[];
  balance: BalanceGroup[];
  timeouts: EdgeTimeouts[];
  segments: Segments | null;
  history: History;
  events: AgentEvent[];
  ports: Port[];
}

export class Store {
  private answers: Partial<Answers> = {};
  private round = 0;
  private abort = new AbortController();
  private timer = 0;
  isFrozen = false;

  constructor(
    private readonly view: () => View,
    /** More of the agent's answers are here. */
    private readonly show: (answers: Answers, signal: AbortSignal) => Promise<void>,
    private readonly lost: (reason: string) => void,
  ) {
    document.addEventListener("visibilitychange", () => this.refresh());
  }

  /** The last answers; nothing before the first. */
  get last(): Answers | null {
    return this.answers.edges ? (this.answers as Answers) : null;
  }

  /** Asks at once, with everything that the view needs. */
  refresh(): void {
    this.abort.abort();
    clearTimeout(this.timer);
    this.round = 0;
    void this.loop();
  }

  private async loop(): Promise<void> {
    const abort = new AbortController();
    this.abort = abort;
    if (document.hidden || this.isFrozen) return;
    const began = performance.now();
    try {
      await this.ask(abort.signal);
      if (abort.signal.aborted) return;
      this.round += 1;
      await this.show(this.answers as Answers, abort.signal);
    } catch (error) {
      if (abort.signal.aborted) return;
      this.round = 0;
      // It may come back as another.
      delete this.answers.segments;
      this.lost(error instanceof Refused ? error.message : "no answer from the agent");
    }
    if (abort.signal.aborted) return;
    this.timer = setTimeout(() => void this.loop(), Math.max(EVERY_MS, SHARE * (performance.now() - began)));
  }

  private async ask(signal: AbortSignal): Promise<void> {
    const { window, tab } = this.view();
    const over = { window };
    const answers: Partial<Answers> = {};
    const all: Promise<void>[] = [];
    const take = <K extends keyof Answers>(name: K, answer: Promise<Answers[K]>) => {
      all.push(answer.then((value) => void (answers[name] = value)));
    };
    // Requests at the same time share a collection of the agent.
    const edges = ask<Edges>("edges", over, signal);
    take("edges", edges);
    take("map", ask("map", over, signal));
    take("services", ask<{ services: ServiceStatus[] }>("services", over, signal).then((it) => it.services));
    if (this.round % SELDOM === 0) {
      take("status", ask("status", {}, signal));
      take("conflicts", ask<{ conflicts: Conflict[] }>("conflicts", {}, signal).then((it) => it.conflicts));
      take("balance", ask<{ groups: BalanceGroup[] }>("balance", over, signal).then((it) => it.groups));
      take("timeouts", ask<{ edges: EdgeTimeouts[] }>("timeouts", {}, signal).then((it) => it.edges));
      // Segments are declared when the agent starts: without any there is nothing to ask again for.
      if (this.answers.segments !== null) take("segments", ask<Segments>("segments", {}, signal).catch(ifNotFound));
      take("history", ask("history", { window: "60s", limit: LINES }, signal));
    }
    if (tab === "ports") take("ports", ask<{ ports: Port[] }>("ports", {}, signal).then((it) => it.ports));
    if (tab === "events") {
      take("events", edges.then((it) => eventsBefore(it.timestamp, signal)));
    }
    await Promise.all(all);
    this.answers = { ...this.answers, ...answers };
  }
}

/** Events of the hour before a time of the agent: of a snapshot it is long ago. */
async function eventsBefore(time: string, signal: AbortSignal): Promise<AgentEvent[]> {
  const since = new Date(Date.parse(time) - 3_600_000).toISOString();
  return (await ask<{ events: AgentEvent[] }>("events", { since, limit: 5000 }, signal)).events;
}

/** No segments are declared. */
function ifNotFound(error: unknown): null {
  if (error instanceof Refused && error.status === 404) return null;
  throw error;
}
