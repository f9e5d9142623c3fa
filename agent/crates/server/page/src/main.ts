// The page that people keep open: what is wrong first, who calls whom, and everything behind it.

import type { Series, ServiceStatus } from "./api.ts";
import { announce, copy, diagnose, edgesCommand, promql } from "./copy.ts";
import { by, element, say, visible } from "./dom.ts";
import { facts, keyOf, row, SIGNS, type Context, type Row } from "./edges.ts";
import { parse, quoted, type Facts, type Filter } from "./filter.ts";
import { listen } from "./keys.ts";
import { ServiceMap } from "./map.ts";
import * as panel from "./panel.ts";
import { problems, type Problem } from "./problems.ts";
import { Store, type Answers } from "./store.ts";
import { Table, type Kind } from "./table.ts";
import * as tabs from "./tabs.ts";
import { clock, counted, fullName, isPast, moment, span } from "./text.ts";
import { read, TABS, WINDOWS, write, type Selection, type Tab, type View } from "./view.ts";

/** Problems on the screen; the rest is counted. */
const MOST_PROBLEMS = 30;

let view = read(location.hash);
let rows: Row[] = [];
let open: { selection: Selection; details: panel.Details | null } | null = null;
const series = new Map<string, Series>();
let until = 0;

const store = new Store(() => view, show, lost);
const map = new ServiceMap({
  edge: (row) => select({ client: row.client, server: row.server, port: row.edge.port }),
  service: (name) => change({ filter: view.filter === `service=${quoted(name)}` ? "" : `service=${quoted(name)}` }),
  unfold: (namespace) => change({ unfolded: [...view.unfolded, namespace] }),
});

function table<T>(name: Tab, kind: Kind<T>): Table<T> {
  return new Table(kind, sortBy, name);
}

const selectionOf = (row: Row): Selection => ({ client: row.isListener ? "any" : row.client, server: row.server, port: row.edge.port });
const isSelected = (row: Row) => view.selected !== null && JSON.stringify(selectionOf(row)) === JSON.stringify(view.selected);
const onlyService = (status: ServiceStatus) => change({ tab: "edges", sort: "", filter: `service=${quoted(fullName(status.service_namespace, status.service))}` });

const tables = {
  edges: table("edges", tabs.edges(series, () => until, (row) => select(selectionOf(row)), isSelected)),
  services: table("services", tabs.services(onlyService)),
  ports: table("ports", tabs.ports()),
  conflicts: table("conflicts", tabs.conflicts()),
  balance: table("balance", tabs.balance()),
  segments: table("segments", tabs.segments()),
  events: table("events", tabs.events()),
  timeouts: table("timeouts", tabs.timeouts()),
  agent: table("agent", tabs.agent()),
};

// What the reader does.

/** Changes the view and its URL. What other numbers are needed for is asked for at once. */
function change(changes: Partial<View>): void {
  const before = view;
  view = { ...view, ...changes };
  const hash = write(view);
  // The panel has a place in the history: Back closes it.
  const method = JSON.stringify(before.selected) === JSON.stringify(view.selected) ? "replaceState" : "pushState";
  history[method](null, "", hash ? `#${hash}` : location.pathname + location.search);
  apply(before);
}

function apply(before: View): void {
  controls();
  if (before.window !== view.window || before.tab !== view.tab) {
    if (before.window !== view.window) by("live").dataset.state = "waiting";
    store.isFrozen = false;
    store.refresh();
  }
  draw();
  if (JSON.stringify(before.selected) !== JSON.stringify(view.selected)) {
    open = null;
    drawPanel();
    if (view.selected) by("panel-close").focus({ preventScroll: true });
    void load(new AbortController().signal);
  }
}

function select(selection: Selection | null): void {
  change({ selected: selection });
}

function sortBy(column: string): void {
  const isText = ["client", "server", "why", "service"].includes(column);
  const [first, second] = isText ? [column, `-${column}`] : [`-${column}`, column];
  change({ sort: view.sort === first ? second : view.sort === second ? "" : first });
}

function freeze(): void {
  store.isFrozen = !store.isFrozen;
  store.refresh();
  by("freeze").setAttribute("aria-pressed", String(store.isFrozen));
  if (store.isFrozen) by("live").dataset.state = "frozen";
  announce(store.isFrozen ? "frozen: the numbers stay" : "live again");
}

// What is shown.

const CHECKS = ["idle", "monitoring", "both"] as const;

/** The controls as the view has them. */
function controls(): void {
  for (const name of WINDOWS) by(`window-${name}`).setAttribute("aria-pressed", String(view.window === name));
  for (const name of CHECKS) by<HTMLInputElement>(name).checked = view[name];
  const filter = by<HTMLInputElement>("filter");
  if (filter.value !== view.filter) filter.value = view.filter;
  for (const name of TABS) {
    const tab = by(`tab-${name}`);
    tab.setAttribute("aria-selected", String(view.tab === name));
    tab.tabIndex = view.tab === name ? 0 : -1;
  }
  by("tabpanel").setAttribute("aria-labelledby", `tab-${view.tab}`);
  by("show-map").setAttribute("aria-expanded", String(view.map));
  document.body.classList.toggle("with-map", view.map);
  by("freeze").setAttribute("aria-pressed", String(store.isFrozen));
}

async function show(answers: Answers, signal: AbortSignal): Promise<void> {
  by("live").dataset.state = isPast(answers.edges.timestamp) ? "past" : "live";
  until = Date.parse(answers.history.window.until) / 1000;
  series.clear();
  for (const one of answers.history.series) series.set(`${keyOf(one)} ${one.role}`, one);
  draw();
  await load(signal);
}

function lost(reason: string): void {
  by("live").dataset.state = "lost";
  const last = store.last ? `; these are the numbers of ${clock(store.last.edges.timestamp)}` : "";
  say(by("status"), `${visible(reason)}${last}`);
  document.title = "Portolan: no answer";
}

/** The filter, and whether its text is one. */
function filter(): Filter {
  const found = parse(view.filter);
  const field = by<HTMLInputElement>("filter");
  const isWrong = found instanceof Error;
  field.setAttribute("aria-invalid", String(isWrong));
  say(by("filter-error"), isWrong ? found.message : "");
  return isWrong ? () => true : found;
}

/** Whether a row of an edge is wanted at all, before the filter. */
function isWanted(row: Row): boolean {
  if (row.edge.other_side && !view.both) return false;
  if (row.isListener) return view.idle || (row.state === "error" && row.edge.port !== 0);
  if (row.state === "error") return true;
  return (view.idle || !row.isIdle) && (view.monitoring || !row.isApart);
}

function draw(): void {
  const answers = store.last;
  const admits = filter();
  if (!answers) return;
  const { edges, map: onMap, services, balance, status } = answers;
  const context: Context = {
    seconds: edges.window.seconds,
    onMap: new Set(onMap.edges.map(keyOf)),
    services: new Map(services.map((one) => [fullName(one.service_namespace, one.service), one])),
    uneven: new Map(balance.filter((one) => [one.requests.verdict, one.connections.verdict].includes("unbalanced")).map((one) => [keyOf(one), one])),
  };
  rows = edges.edges.map((edge) => row(edge, context));
  const wanted = rows.filter(isWanted);
  const { found, others } = problems({
    now: edges.timestamp,
    since: edges.window.since,
    context,
    rows,
    isWanted: (row) => admits(facts(row)),
    conflicts: answers.conflicts.filter((one) => Date.parse(one.last_seen) >= Math.min(Date.parse(edges.window.since), Date.parse(edges.timestamp) - 300_000)),
    segments: answers.segments,
    timeouts: answers.timeouts,
    findings: status.findings,
  });
  drawProblems(found, others, wanted);
  const shown = wanted.filter((one) => admits(facts(one)));
  map.update(
    shown.filter((one) => !one.isListener && !one.edge.other_side && (view.monitoring || !one.isApart)),
    new Map(onMap.edges.map((one) => [keyOf(one), one])),
    edges.window.seconds,
    view.unfolded,
    JSON.stringify([view.window, view.filter, view.monitoring, view.unfolded]),
  );
  drawTab(answers, shown, admits);
  if (view.selected) drawPanel();
  const errors = found.filter((one) => one.state === "error").length;
  const warnings = found.length - errors;
  document.title = `${errors > 0 ? `✗${errors} ` : warnings > 0 ? `!${warnings} ` : ""}Portolan ${location.host}`;
  const what = `${shown.length} of ${counted(rows.length, "edge")}, ${view.window === "start" ? "since the start, " : ""}${span(edges.window.seconds)}`;
  say(
    by("status"),
    isPast(edges.timestamp) ? `${moment(edges.timestamp)}: ${what}` : `${what}, ${moment(edges.timestamp)}`,
  );
  say(by("about"), visible(`${location.host}, version ${status.version}, kernel ${status.kernel}`));
}

function drawTab({ services, ports, conflicts, balance, segments, events, timeouts, status }: Answers, shown: Row[], admits: Filter): void {
  const kept = <T>(list: T[] | undefined, of: (row: T) => Facts): T[] => (list ?? []).filter((one) => admits(of(one)));
  const { factsOf } = tabs;
  const { sort } = view;
  const updates: Record<Tab, () => void> = {
    edges: () => tables.edges.update(shown, sort),
    services: () => tables.services.update(kept(services, factsOf.services), sort),
    ports: () => tables.ports.update(kept(ports, factsOf.ports), sort),
    conflicts: () => tables.conflicts.update(kept(conflicts, factsOf.conflicts), sort),
    balance: () => tables.balance.update(kept(balance.flatMap((group) => group.backends.map((backend) => ({ group, backend }))), factsOf.balance), sort),
    segments: () => tables.segments.update(kept(segments?.matrix, factsOf.segments), sort),
    events: () => tables.events.update(kept(events, factsOf.events), sort),
    timeouts: () => tables.timeouts.update(kept(timeouts, factsOf.timeouts), sort),
    agent: () => tables.agent.update(kept(tabs.agentRows(status), factsOf.agent), sort),
  };
  updates[view.tab]();
  const { node } = tables[view.tab];
  if (by("tabpanel").firstElementChild !== node) by("tabpanel").replaceChildren(node);
}

let drawnProblems = "";

function drawProblems(found: Problem[], others: number, wanted: Row[]): void {
  const drawn = found.slice(0, MOST_PROBLEMS);
  const text = JSON.stringify([drawn, found.length, others, found.length > 0 || wanted.length]);
  // The same again: the reader may be about to press a button of it.
  if (text === drawnProblems) return;
  drawnProblems = text;
  const items = drawn.map((problem) => {
    const { state, subject, text, note, edge, diagnose: ends, code } = problem;
    return element(
      "li",
      { "data-state": state },
      element("span", { class: "sign", "aria-label": state }, SIGNS[state]),
      element(
        "div",
        {},
        subject !== "" && element("b", {}, subject),
        " ",
        element("span", {}, text),
        note !== "" && element("small", {}, note),
      ),
      element(
        "span",
        { class: "actions" },
        edge && element("button", { type: "button", onclick: () => select(edge), "aria-label": `why: ${visible(subject)}` }, "why"),
        ends && element("button", { type: "button", onclick: () => void copy(diagnose(ends)), title: diagnose(ends), "aria-label": `copy diagnose: ${visible(subject)}` }, "copy diagnose"),
        code && element("button", { type: "button", onclick: () => void copy(`portolan explain ${code}`), "aria-label": `copy explain ${code}: ${visible(text)}` }, `copy explain ${code}`),
      ),
    );
  });
  const more = found.length - drawn.length;
  if (more > 0) items.push(element("li", { class: "quiet" }, `${more} more: see the tabs`));
  if (items.length === 0) {
    const what = wanted.length > 0 ? `✓ nothing fails here: ${counted(wanted.filter((one) => !one.isListener).length, "edge")} with traffic` : "no traffic in this window";
    items.push(element("li", { "data-state": "ok" }, what));
  }
  if (others > 0) items.push(element("li", { class: "quiet" }, `${counted(others, "problem")} of edges outside of the filter`));
  by("problems").replaceChildren(...items);
}

async function load(signal: AbortSignal): Promise<void> {
  const { selected } = view;
  const answers = store.last;
  if (!selected || !answers) return;
  const details = await panel.details(selected, answers.edges.timestamp, signal);
  if (view.selected !== selected) return;
  open = { selection: selected, details };
  drawPanel();
}

function drawPanel(): void {
  const { selected } = view;
  const answers = store.last;
  by("panel").hidden = selected === null;
  document.body.classList.toggle("with-panel", selected !== null);
  if (!selected || !answers) return;
  panel.show(selected, open?.details ?? null, {
    now: answers.edges.timestamp,
    window: view.window,
    seconds: answers.edges.window.seconds,
    rows,
    balance: answers.balance,
    segments: answers.segments,
    select,
  });
}

// The page as it is served, and what moves it.

for (const name of WINDOWS) by(`window-${name}`).addEventListener("click", () => change({ window: name }));
for (const name of CHECKS) by(name).addEventListener("change", (event) => change({ [name]: (event.target as HTMLInputElement).checked }));
for (const name of TABS) by(`tab-${name}`).addEventListener("click", () => change({ tab: name, sort: "" }));
by("filter").addEventListener("input", (event) => change({ filter: (event.target as HTMLInputElement).value }));
by("show-map").addEventListener("click", () => change({ map: !view.map }));
by("freeze").addEventListener("click", freeze);
by("panel-close").addEventListener("click", () => select(null));
by("help-open").addEventListener("click", () => by<HTMLDialogElement>("help").showModal());
const ends = ({ client, server, port }: Selection) => (client === "any" ? [server] : [client, `${server}:${port}`]);
const COPIES: Record<string, (selection: Selection) => string> = {
  "copy-diagnose": (selection) => diagnose(ends(selection)),
  "copy-edges": (selection) => edgesCommand(selection, view.window),
  "copy-promql": promql,
};
for (const [id, text] of Object.entries(COPIES)) {
  by(id).addEventListener("click", () => view.selected && void copy(text(view.selected)));
}
addEventListener("popstate", () => {
  const before = view;
  view = read(location.hash);
  apply(before);
});

listen({
  view: () => view,
  change,
  freeze,
  close: () => select(null),
  copy: () => view.selected && void copy(diagnose(ends(view.selected))),
  sort: () => {
    const { columns } = tables[view.tab];
    const at = columns.indexOf(view.sort.replace(/^-/, ""));
    const next = columns[at + 1];
    change({ sort: next ? `-${next}` : "" });
  },
});

controls();
drawPanel();
store.refresh();
