// Elements, made of text and other elements: there is no way here to put in markup, so that a
// service whose name is markup is shown, and not obeyed.

/** What an element can contain; nothing stands for "leave it out". */
export type Content = Node | string | number | null | undefined | false;

type Attributes = Record<string, string | number | boolean | null | undefined | ((event: Event) => void)>;

/** Invisible characters that turn or hide what is around them, as well as all control characters. */
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** A text with everything in it that could deceive the reader written out. */
export function visible(text: string): string {
  return text.replace(UNSEEN, (c) => `\\u{${c.codePointAt(0)?.toString(16)}}`);
}

/** An element. Attributes that begin with `on` are listeners; `false` and `null` leave one out. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...contents: Content[]
): HTMLElementTagNameMap[K] {
  return fill(document.createElement(tag), attributes, contents);
}

/** The same in a drawing. The page has an empty one, which knows the name of its namespace. */
export function drawing(tag: string, attributes: Attributes = {}, ...contents: Content[]): SVGElement {
  const namespace = by("map").namespaceURI;
  return fill(document.createElementNS(namespace, tag) as SVGElement, attributes, contents);
}

/** The element of the page with this id. */
export function by<T extends Element = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as unknown as T;
}

/** Sets a text if it is another: a screen reader, and a selection, do not lose their place. */
export function say(node: Node, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

function fill<T extends Element>(node: T, attributes: Attributes, contents: Content[]): T {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...nodes(contents));
  return node;
}

function nodes(contents: Content[]): (Node | string)[] {
  const kept = contents.filter((one): one is Node | string | number => one !== null && one !== undefined && one !== false);
  return kept.map((one) => (typeof one === "object" ? one : visible(String(one))));
}
