// Keeps the table of the page up to date. Everything that comes from the network is put in as
// text, never as markup.
"use strict";

const EVERY_MS = 2000;

const count = (n) => n.toLocaleString("en").replaceAll(",", " ");

function bytes(n) {
  for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
    if (n < 1000 || unit === "TB") return `${unit === "B" ? n : n.toFixed(1)} ${unit}`;
    n /= 1000;
  }
}

function duration(seconds) {
  if (seconds === null) return "–";
  // The last bucket's bound stands for everything beyond.
  if (seconds >= 10) return "> 10 s";
  if (seconds < 1e-3) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${+(seconds * 1e3).toFixed(2)} ms`;
  return `${+seconds.toFixed(2)} s`;
}

const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
const name = (service, namespace) => (namespace ? `${namespace}/${service}` : service);

// Queues are measured in bytes, everything else is counted.
function cause({ cause, text, count: n }) {
  return `${cause.endsWith("_queue") ? bytes(n) : count(n)} ${text}`;
}

const choice = (id) => document.getElementById(id);

// Each edge once, unless both sides are wanted; what did nothing in the window on demand.
function shows(edge) {
  if (edge.other_side && !choice("both").checked) return false;
  const listener = edge.role === "listener" || (edge.client === "any" && edge.client_source === "unknown");
  const busy = edge.active + edge.opened + edge.closed + edge.request.count + sum(edge.connects) > 0;
  return choice("all").checked || (edge.port !== 0 && edge.why.length > 0) || (busy && !listener);
}

// What is not well first, then what is busiest.
function order(a, b) {
  return (b.why.length > 0) - (a.why.length > 0) || b.request.count - a.request.count;
}

function row(edge) {
  const failed = sum(edge.connects) - edge.connects.ok;
  const aborts = sum(edge.aborts);
  // One that answered a connect is a failed connect.
  const refused = edge.resets_received.no_listener ?? 0;
  const resets = sum(edge.resets_sent) + sum(edge.resets_received) - refused;
  const cells = [
    [name(edge.client, edge.client_namespace)],
    [name(edge.server, edge.server_namespace)],
    [edge.port],
    [edge.role],
    [count(edge.request.count)],
    [duration(edge.request.p99_seconds)],
    [count(failed), failed > 0],
    [count(edge.unanswered), edge.unanswered > 0],
    [edge.why.map(cause).join(", ") || "–", edge.why.length > 0],
    [count(edge.connects.ok)],
    [count(edge.active)],
    [duration(edge.request.p50_seconds)],
    [duration(edge.rtt.p50_seconds)],
    [bytes(edge.sent_bytes)],
    [bytes(edge.received_bytes)],
    [count(edge.retransmits), edge.retransmits > 0],
    [count(aborts), aborts > 0],
    [count(resets), resets > 0],
  ];
  const tr = document.createElement("tr");
  for (const [text, bad] of cells) {
    const td = document.createElement("td");
    td.textContent = text;
    if (bad) td.className = "bad";
    tr.append(td);
  }
  return tr;
}

function finding({ code, title, evidence, remediation }) {
  const reason = evidence.reason ? ` (${evidence.reason})` : "";
  const fix = remediation ? ` Fix: ${remediation}` : "";
  const li = document.createElement("li");
  li.textContent = `${code} ${title}${reason}${fix}`;
  return li;
}

async function json(path) {
  const response = await fetch(path);
  const body = await response.json();
  if (!response.ok) throw new Error(body.error);
  return body;
}

async function refresh() {
  const state = document.getElementById("state");
  try {
    const path = `api/v1/edges?window=${choice("window").value}`;
    const [edges, status] = await Promise.all([json(path), json("api/v1/status")]);
    const shown = edges.edges.filter(shows).sort(order);
    choice("edges").replaceChildren(...shown.map(row));
    document.getElementById("findings").replaceChildren(...status.findings.map(finding));
    const attached = status.hooks.filter((hook) => hook.attached).length;
    const when = new Date(edges.timestamp).toLocaleTimeString();
    state.textContent =
      `${shown.length} of ${edges.edges.length} edges, last ${Math.round(edges.window.seconds)} s, at ${when}; ${attached} of ${status.hooks.length} hooks attached; ` +
      `version ${status.version}, kernel ${status.kernel}`;
  } catch (error) {
    state.textContent = `No answer from the agent: ${error.message}`;
  }
}

async function loop() {
  if (!document.hidden) await refresh();
  setTimeout(loop, EVERY_MS);
}

for (const id of ["window", "both", "all"]) choice(id).addEventListener("change", refresh);
loop();
