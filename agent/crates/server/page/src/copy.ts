// Commands and queries that show the same elsewhere, and the clipboard.

import { by, element, say, visible } from "./dom.ts";
import type { Selection, Window } from "./view.ts";

/** A word of a command line, in quotes if a shell would read more into it. */
export function shell(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** `portolan diagnose` with these services. */
export function diagnose(services: string[]): string {
  return ["portolan diagnose", ...services.map(shell)].join(" ");
}

/** The edges of the same two services on the command line. */
export function edgesCommand({ client, server, port }: Selection, window: Window): string {
  const pick = `.edges[] | select(.client == ${jq(client)} and .server == ${jq(server)} and .port == ${port})`;
  return `portolan edges --window ${window} -o json | jq ${shell(pick)}`;
}

/** Request latency and failed connects of an edge, over five minutes. */
export function promql({ client, server, port }: Selection): string {
  const [clients, servers] = [split(client), split(server)];
  const labels = [
    `client=${JSON.stringify(clients.name)}`,
    `client_namespace=${JSON.stringify(clients.namespace)}`,
    `server=${JSON.stringify(servers.name)}`,
    `server_namespace=${JSON.stringify(servers.namespace)}`,
    `port="${port}"`,
  ];
  const of = (more: string[]) => `{${[...labels, ...more].join(", ")}}`;
  return [
    `histogram_quantile(0.99, sum by (le, role) (rate(portolan_request_duration_seconds_bucket${of([])}[5m])))`,
    `sum by (result, role) (rate(portolan_tcp_connects_total${of(['result!="ok"'])}[5m]))`,
  ].join("\n");
}

/** Namespace and name: a name has no slash, a namespace may. */
function split(full: string): { namespace: string; name: string } {
  const at = full.lastIndexOf("/");
  return { namespace: full.slice(0, Math.max(0, at)), name: full.slice(at + 1) };
}

function jq(full: string): string {
  return JSON.stringify(split(full).name);
}

/** Puts a text into the clipboard, and says so; where that is not permitted it is shown. */
export async function copy(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    announce(`copied: ${text}`);
  } catch {
    // Without TLS, away from loopback, there is no clipboard.
    const field = element("textarea", { readonly: true, rows: 4, "aria-label": "text to copy" });
    field.value = text;
    const dialog = by<HTMLDialogElement>("copied");
    by("copied-text").replaceChildren(field);
    dialog.showModal();
    field.select();
  }
}

let hides = 0;

/** A short message, for screen readers too. */
export function announce(text: string): void {
  const toast = by("toast");
  say(toast, visible(text));
  toast.classList.add("shown");
  clearTimeout(hides);
  hides = setTimeout(() => toast.classList.remove("shown"), 3000);
}
