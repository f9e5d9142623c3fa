// Where everything is on the map: each group of services that have to do with each other in layers,
// by dagre; the groups beside and below each other so that they fill the room there is.

import { graphlib, layout } from "@dagrejs/dagre";

const NODE_HEIGHT = 30;
/** Between groups. */
const SPACE = 26;
/** Above a node that calls itself. */
const LOOP = 22;

export interface Spot {
  x: number;
  y: number;
}

export interface Size {
  width: number;
  height: number;
}

export interface Places {
  /** Middles of nodes. */
  nodes: Map<string, Spot>;
  links: Map<string, { points: Spot[]; label: Spot }>;
}

interface End {
  id: string;
  width: number;
}

interface Line {
  id: string;
  from: string;
  to: string;
}

interface Group {
  places: Places;
  size: Size;
}

/** Places for everything, for a frame that is so many times as wide as it is high. */
export function arrange(nodes: Map<string, End>, links: Line[], ratio: number): { places: Places; size: Size } {
  const groups = grouped(nodes, links).map(([ends, lines]) => layered(ends, lines));
  const sorted = groups.sort((a, b) => b.size.height * b.size.width - a.size.height * a.size.width);
  // As many columns as make the best use of the frame.
  const least = Math.max(1, ...sorted.map(({ size }) => size.height));
  const whole = sorted.reduce((n, { size }) => n + size.height + SPACE, 0);
  let best = packed(sorted, whole);
  for (let parts = 2; parts <= 8; parts++) {
    const other = packed(sorted, Math.max(least, whole / parts));
    if (scale(other.size, ratio) > scale(best.size, ratio)) best = other;
  }
  return best;
}

function scale({ width, height }: Size, ratio: number): number {
  return Math.min(ratio / width, 1 / height);
}

/** Puts groups below each other into columns of at most this height. */
function packed(groups: Group[], height: number): { places: Places; size: Size } {
  const places: Places = { nodes: new Map(), links: new Map() };
  const size = { width: 1, height: 1 };
  let [x, y, column] = [0, 0, 0];
  for (const group of groups) {
    if (y > 0 && y + group.size.height > height) [x, y, column] = [x + column + SPACE, 0, 0];
    const move = (spot: Spot) => ({ x: spot.x + x, y: spot.y + y });
    for (const [id, spot] of group.places.nodes) places.nodes.set(id, move(spot));
    for (const [id, { points, label }] of group.places.links) places.links.set(id, { points: points.map(move), label: move(label) });
    column = Math.max(column, group.size.width);
    size.width = Math.max(size.width, x + group.size.width);
    size.height = Math.max(size.height, y + group.size.height);
    y += group.size.height + SPACE;
  }
  return { places, size };
}

/** Nodes that links connect, in whichever direction, in an order that is always the same. */
function grouped(nodes: Map<string, End>, links: Line[]): [End[], Line[]][] {
  const group = new Map([...nodes.keys()].map((id) => [id, id]));
  const top = (id: string): string => {
    let at = id;
    for (let next = group.get(at); next !== undefined && next !== at; next = group.get(at)) at = next;
    return at;
  };
  for (const { from, to } of links) group.set(top(from), top(to));
  const found = new Map<string, [End[], Line[]]>();
  const of = (id: string) => {
    const known: [End[], Line[]] = found.get(top(id)) ?? [[], []];
    found.set(top(id), known);
    return known;
  };
  for (const id of [...nodes.keys()].sort()) of(id)[0].push(nodes.get(id) as End);
  for (const line of links.toSorted((a, b) => (a.id < b.id ? -1 : 1))) of(line.from)[1].push(line);
  return [...found.values()];
}

function layered(ends: End[], lines: Line[]): Group {
  const graph = new graphlib.Graph({ multigraph: true });
  graph.setGraph({ rankdir: "LR", nodesep: 14, ranksep: 60, edgesep: 10, marginx: 4, marginy: 4 });
  for (const { id, width } of ends) graph.setNode(id, { width, height: NODE_HEIGHT });
  const [loops, others] = [lines.filter(({ from, to }) => from === to), lines.filter(({ from, to }) => from !== to)];
  for (const { id, from, to } of others) graph.setEdge(from, to, { width: 52, height: 14, labelpos: "c" }, id);
  layout(graph);
  const down = loops.length > 0 ? LOOP : 0;
  const move = ({ x, y }: Spot) => ({ x, y: y + down });
  const places: Places = { nodes: new Map(ends.map(({ id }) => [id, move(graph.node(id))])), links: new Map() };
  for (const { id, from, to } of others) {
    const edge = graph.edge(from, to, id);
    places.links.set(id, { points: edge.points.map(move), label: move(edge) });
  }
  for (const { id, from } of loops) {
    const { x, y } = places.nodes.get(from) as Spot;
    const quarter = graph.node(from).width / 4;
    const top = y - NODE_HEIGHT / 2;
    const points = [{ x: x + quarter, y: top }, { x: x + quarter, y: top - LOOP }, { x: x - quarter, y: top - LOOP }, { x: x - quarter, y: top }];
    places.links.set(id, { points, label: { x, y: top - LOOP + 4 } });
  }
  const { width = 1, height = 1 } = graph.graph();
  return { places, size: { width, height: height + down } };
}

/** A smooth line through points: quadratic curves between the middles of their sections. */
export function curve(points: Spot[]): string {
  const text = ({ x, y }: Spot) => `${x.toFixed(1)} ${y.toFixed(1)}`;
  const [first, ...rest] = points;
  const last = rest.pop();
  if (!first || !last) return "";
  let d = `M${text(first)}`;
  rest.forEach((point, i) => {
    const next = rest[i + 1];
    const end = next ? { x: (point.x + next.x) / 2, y: (point.y + next.y) / 2 } : last;
    d += `Q${text(point)} ${text(end)}`;
  });
  return rest.length > 0 ? d : `${d}L${text(last)}`;
}
