// A table that is updated in place: rows keep their elements, so that focus, selection and the
// place of the reader survive the next answer of the agent.

import { by, element, say, visible, type Content } from "./dom.ts";

/** More rows than this are counted, not drawn. */
const MOST = 300;

export interface Column<T> {
  id: string;
  title: string;
  /** What the heading means, for those who point at it. */
  hint?: string;
  /** Text at the left; numbers are at the right, and sorted from the largest. */
  isText?: boolean;
  /** By what it is sorted; null is always last. */
  value: (row: T) => string | number | null;
  cell: (row: T) => Content;
  /** A class of the cell. */
  kind?: (row: T) => string;
  /** Which screens leave it out: 1 narrow ones, 2 all but wide ones. */
  rank?: 1 | 2;
}

export interface Kind<T> {
  columns: Column<T>[];
  key: (row: T) => string;
  /** Without a choice of the reader. */
  usual: (a: T, b: T) => number;
  /** What a row is, for screen readers; and what opening it does. */
  label?: (row: T) => string;
  open?: (row: T) => void;
  isSelected?: (row: T) => boolean;
  state?: (row: T) => string;
  empty: string;
}

interface Line {
  tr: HTMLTableRowElement;
  cells: HTMLTableCellElement[];
  open: () => void;
}

export class Table<T> {
  private readonly lines = new Map<string, Line>();
  private readonly heads: HTMLTableCellElement[];
  private readonly body = element("tbody");
  private readonly rest = element("p", { class: "quiet rest" });
  readonly node: HTMLElement;

  constructor(
    private readonly kind: Kind<T>,
    sortBy: (column: string) => void,
    name: string,
  ) {
    this.heads = kind.columns.map((column) =>
      element(
        "th",
        { scope: "col", class: classes(column) },
        element("button", { type: "button", title: column.hint, onclick: () => sortBy(column.id) }, column.title),
      ),
    );
    this.node = element(
      "div",
      { class: "scroller", tabindex: 0, role: "region", "aria-label": name },
      element("table", {}, element("caption", { class: "unseen" }, name), element("thead", {}, element("tr", {}, ...this.heads)), this.body),
      this.rest,
    );
  }

  /** The columns, in the order of `s`. */
  get columns(): string[] {
    return this.kind.columns.map((column) => column.id);
  }

  update(rows: T[], sort: string): void {
    const sorted = this.sorted(rows, sort);
    const focused = document.activeElement;
    const drawn = sorted.slice(0, MOST);
    const kept = new Set<string>();
    let next = this.body.firstElementChild;
    for (const row of drawn) {
      const key = this.kind.key(row);
      if (kept.has(key)) continue;
      kept.add(key);
      const line = this.lines.get(key) ?? this.line(key);
      this.fill(line, row);
      if (line.tr === next) next = next.nextElementSibling;
      else this.body.insertBefore(line.tr, next);
    }
    for (const [key, line] of this.lines) {
      if (kept.has(key)) continue;
      line.tr.remove();
      this.lines.delete(key);
    }
    // Moving an element takes its focus.
    if (focused instanceof HTMLElement && focused !== document.activeElement && this.body.contains(focused)) focused.focus({ preventScroll: true });
    const more = sorted.length - drawn.length;
    say(this.rest, rows.length === 0 ? this.kind.empty : more > 0 ? `${more} more are not shown: filter (/)` : "");
  }

  private sorted(rows: T[], sort: string): T[] {
    const descends = sort.startsWith("-");
    const column = this.kind.columns.find(({ id }) => id === sort.replace(/^-/, ""));
    this.kind.columns.forEach((one, i) => {
      const order = one !== column ? null : descends ? "descending" : "ascending";
      if (order) this.heads[i]?.setAttribute("aria-sort", order);
      else this.heads[i]?.removeAttribute("aria-sort");
    });
    if (!column) return rows.toSorted(this.kind.usual);
    const compare = (a: T, b: T) => {
      const [x, y] = [column.value(a), column.value(b)];
      if (x === null || y === null) return (x === null ? 1 : 0) - (y === null ? 1 : 0);
      const order = x < y ? -1 : x > y ? 1 : 0;
      return descends ? -order : order;
    };
    return rows.toSorted((a, b) => compare(a, b) || this.kind.usual(a, b));
  }

  private line(key: string): Line {
    const cells = this.kind.columns.map((column) => element("td", { class: classes(column), "data-label": column.title }));
    const line: Line = { tr: element("tr", {}, ...cells), cells, open: () => {} };
    if (this.kind.open) {
      line.tr.classList.add("opens");
      line.tr.addEventListener("click", () => {
        // A click that ends a selection of text is none.
        if (!String(getSelection() ?? "")) line.open();
      });
      const button = element("button", { type: "button", class: "open" });
      cells[0]?.append(button);
    }
    this.lines.set(key, line);
    return line;
  }

  private fill({ tr, cells }: Line, row: T): void {
    const { columns, open, label, state, isSelected } = this.kind;
    columns.forEach((column, i) => {
      const cell = cells[i];
      if (!cell) return;
      const content = column.cell(row);
      const into = open && i === 0 ? (cell.firstElementChild ?? cell) : cell;
      if (typeof content === "object" && content !== null) into.replaceChildren(content);
      else say(into, visible(String(content ?? "")));
      if (open && i === 0 && label) into.setAttribute("aria-label", visible(label(row)));
      if (column.kind) cell.className = `${classes(column)} ${column.kind(row)}`;
    });
    if (state) tr.dataset.state = state(row);
    if (isSelected) tr.setAttribute("aria-current", String(isSelected(row)));
    const line = this.lines.get(this.kind.key(row));
    if (line && open) line.open = () => open(row);
  }
}

function classes<T>(column: Column<T>): string {
  return `${column.isText ? "text" : "number"}${column.rank ? ` rank-${column.rank}` : ""} c-${column.id}`;
}

/** The elements of the tab that is shown that open a row. */
export function openers(): HTMLElement[] {
  return [...by("tabpanel").querySelectorAll<HTMLElement>("button.open")];
}
