// The keyboard: one table, which the page's help repeats.

import { by } from "./dom.ts";
import { openers } from "./table.ts";
import { TABS, WINDOWS, type View } from "./view.ts";

export interface Actions {
  view: () => View;
  change: (changes: Partial<View>) => void;
  freeze: () => void;
  close: () => void;
  copy: () => void;
  /** By the next column. */
  sort: () => void;
}

type Key = [keys: string[], act: (actions: Actions, key: string) => void];

const KEYS: Key[] = [
  [["?"], () => by<HTMLDialogElement>("help").showModal()],
  [["/"], () => by<HTMLInputElement>("filter").select()],
  [["j", "ArrowDown"], () => move(1)],
  [["k", "ArrowUp"], () => move(-1)],
  [["w"], ({ view, change }) => change({ window: WINDOWS[(WINDOWS.indexOf(view().window) + 1) % WINDOWS.length] ?? "1m" })],
  [["s"], ({ sort }) => sort()],
  [["a"], ({ view, change }) => change({ idle: !(view().idle && view().monitoring), monitoring: !(view().idle && view().monitoring) })],
  [["b"], ({ view, change }) => change({ both: !view().both })],
  [["m"], ({ view, change }) => change({ map: !view().map })],
  [["z"], ({ freeze }) => freeze()],
  [["c"], ({ copy }) => copy()],
  [TABS.map((_, i) => String(i + 1)), ({ change }, key) => change({ tab: TABS[Number(key) - 1] ?? "edges", sort: "" })],
];

/** Acts on keys, except in fields and dialogs, and with those of the browser. */
export function listen(actions: Actions): void {
  document.addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      if (target.id === "filter") target.blur();
      else actions.close();
      return;
    }
    if (target.matches("input[type=search], textarea, select")) return;
    if (target.getAttribute("role") === "tab" && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
      const step = event.key === "ArrowRight" ? 1 : -1;
      const at = (TABS.indexOf(actions.view().tab) + step + TABS.length) % TABS.length;
      actions.change({ tab: TABS[at] ?? "edges", sort: "" });
      by(`tab-${actions.view().tab}`).focus();
      event.preventDefault();
      return;
    }
    const found = KEYS.find(([keys]) => keys.includes(event.key));
    if (!found) return;
    event.preventDefault();
    found[1](actions, event.key);
  });
}

/** Moves the focus among rows. */
function move(step: number): void {
  const rows = openers();
  const at = rows.findIndex((one) => one === document.activeElement);
  const next = rows[at < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + step))];
  next?.focus();
}
