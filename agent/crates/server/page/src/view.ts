// What the reader looks at, kept in the URL: a reload, a bookmark and a link in a chat show the
// same. It is behind the `#`, so that no server and no log has it.

export const WINDOWS = ["10s", "1m", "5m", "start"] as const;
export const TABS = [
  "edges",
  "services",
  "ports",
  "conflicts",
  "balance",
  "segments",
  "events",
  "timeouts",
  "agent",
] as const;

export type Window = (typeof WINDOWS)[number];
export type Tab = (typeof TABS)[number];

/** An edge, by its ends. */
export interface Selection {
  client: string;
  server: string;
  port: number;
}

export interface View {
  window: Window;
  tab: Tab;
  filter: string;
  /** A column, with `-` in front if the largest is first; empty is the order of the tab. */
  sort: string;
  /** Idle edges and listeners too. */
  idle: boolean;
  /** Monitoring, health checks and the agent itself too. */
  monitoring: boolean;
  /** Both sides of every edge. */
  both: boolean;
  /** Whether the map is drawn where the screen is narrow. */
  map: boolean;
  /** Namespaces that are not folded on the map. */
  unfolded: string[];
  selected: Selection | null;
}

const STANDARD: View = {
  window: "1m",
  tab: "edges",
  filter: "",
  sort: "",
  idle: false,
  monitoring: false,
  both: false,
  map: false,
  unfolded: [],
  selected: null,
};

/** The view of a URL; what it does not know is as usual. */
export function read(hash: string): View {
  const query = new URLSearchParams(hash.replace(/^#/, ""));
  const one = <T extends string>(name: string, known: readonly T[], usual: T): T =>
    known.find((word) => word === query.get(name)) ?? usual;
  const has = (name: string) => query.get(name) === "1";
  const [client, server, port] = [query.get("client"), query.get("server"), Number(query.get("port"))];
  return {
    window: one("window", WINDOWS, STANDARD.window),
    tab: one("tab", TABS, STANDARD.tab),
    filter: query.get("filter") ?? "",
    sort: query.get("sort") ?? "",
    idle: has("idle"),
    monitoring: has("monitoring"),
    both: has("both"),
    map: has("map"),
    unfolded: query.getAll("unfold"),
    selected: client !== null && server !== null && Number.isInteger(port) ? { client, server, port } : null,
  };
}

/** The URL of a view, without what is as usual. */
export function write(view: View): string {
  const query = new URLSearchParams();
  for (const name of ["window", "tab", "filter", "sort"] as const) {
    if (view[name] !== STANDARD[name]) query.set(name, view[name]);
  }
  for (const name of ["idle", "monitoring", "both", "map"] as const) {
    if (view[name]) query.set(name, "1");
  }
  for (const namespace of view.unfolded) query.append("unfold", namespace);
  if (view.selected) {
    query.set("client", view.selected.client);
    query.set("server", view.selected.server);
    query.set("port", String(view.selected.port));
  }
  return query.toString();
}
