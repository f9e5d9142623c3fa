// The filter language of rows, `client=gateway port=3002 err>1 p99>50ms why=timeout !cache`: the same
// as that of the commands (crate `notation`), which is held to the same list of examples.
//
// All terms must hold. A bare word is a part of any text of the row; `!` before a term, or `!=`,
// negates it; `*` in a name stands for anything; double quotes keep spaces.

const TEXTS = ["client", "server", "service", "ns", "role", "why", "state", "kind", "host"] as const;
const NUMBERS = {
  port: "plain",
  req: "plain",
  p50: "seconds",
  p99: "seconds",
  err: "percent",
  unans: "plain",
  conn: "plain",
  fail: "plain",
  retr: "percent",
  rtt: "seconds",
  active: "plain",
  count: "plain",
} as const;

const UNITS: Record<string, Record<string, number>> = {
  plain: { "": 1, k: 1e3, M: 1e6 },
  percent: { "": 1, "%": 1 },
  seconds: { us: 1e-6, "µs": 1e-6, ms: 1e-3, s: 1, m: 60 },
};
const VALUES: Record<string, string> = { ns: "shop", role: "client", why: "timeout", state: "error", kind: "connect", host: "node7" };
const EXAMPLES: Record<string, string> = { plain: "10", percent: "1%", seconds: "50ms" };

export type TextField = (typeof TEXTS)[number];
export type NumberField = keyof typeof NUMBERS;

/** What a row offers to filters: shares are in percent, durations in seconds. */
export interface Facts {
  texts: Partial<Record<TextField, string[]>>;
  numbers: Partial<Record<NumberField, number | number[] | null>>;
}

/** Whether a row is wanted. */
export type Filter = (facts: Facts) => boolean;

/** Letters with `plain` unset were in quotes. */
type Letter = { c: string; plain: boolean };

/** A filter, or the reason why the text is none, in words. */
export function parse(text: string): Filter | Error {
  try {
    const terms = tokens(text).map(term);
    return (facts) => terms.every((holds) => holds(facts));
  } catch (error) {
    return error as Error;
  }
}

/** A value in the form that reads back as itself. */
export function quoted(value: string): string {
  return /[\s"\\=<>!]/u.test(value) || value === "" ? `"${value.replace(/["\\]/g, "\\$&")}"` : value;
}

function tokens(text: string): Letter[][] {
  const found: Letter[][] = [];
  let token: Letter[] = [];
  let inQuotes = false;
  const letters = [...text];
  for (let i = 0; i < letters.length; i++) {
    const c = letters[i] as string;
    if (c === '"') inQuotes = !inQuotes;
    else if (inQuotes && c === "\\") {
      const next = letters[++i];
      if (next === undefined) throw new Error("the text ends behind \\");
      token.push({ c: next, plain: false });
    } else if (!inQuotes && /\s/u.test(c)) {
      found.push(token);
      token = [];
    } else token.push({ c, plain: !inQuotes });
  }
  if (inQuotes) throw new Error('the closing " is missing');
  found.push(token);
  // An empty word is a part of everything.
  return found.filter((one) => one.length > 0);
}

const string = (letters: Letter[]) => letters.map((letter) => letter.c).join("");

function term(token: Letter[]): Filter {
  const is = (letter: Letter | undefined, c: string) => letter?.plain === true && letter.c === c;
  let isNegated = is(token[0], "!");
  const rest = isNegated ? token.slice(1) : token;
  const at = rest.findIndex((letter) => letter.plain && "=<>!".includes(letter.c));
  if (at < 0) {
    if (rest.length === 0) throw new Error("write a word or a term after !, like !cache");
    const holds = word(string(rest));
    return (facts) => holds(facts) !== isNegated;
  }
  const first = (rest[at] as Letter).c;
  const isPair = first !== "=" && is(rest[at + 1], "=");
  if (first === "!" && !isPair) {
    throw new Error(`"${string(rest)}" is not a term; write terms like client=gateway port=3002 err>1 p99>50ms why=timeout !cache`);
  }
  if (first === "!") isNegated = !isNegated;
  const comparison = first === "!" ? "=" : first + (isPair ? "=" : "");
  const value = string(rest.slice(at + (isPair ? 2 : 1)));
  const holds = comparisonOf(string(rest.slice(0, at)), comparison, value);
  return (facts) => holds(facts) !== isNegated;
}

function word(text: string): Filter {
  const wanted = text.toLowerCase();
  return ({ texts, numbers }) =>
    Object.values(texts).some((values) => values?.some((value) => value.toLowerCase().includes(wanted))) ||
    all(numbers.port).some((port) => String(port) === wanted);
}

/** The numbers of a field: a row may stand for several. */
function all(numbers: number | number[] | null | undefined): number[] {
  return numbers === undefined || numbers === null ? [] : [numbers].flat();
}

function comparisonOf(field: string, comparison: string, value: string): Filter {
  if (Object.hasOwn(NUMBERS, field)) return number(field as NumberField, comparison, value);
  const known = TEXTS.find((name) => name === field);
  if (!known) {
    const names = [...TEXTS, ...Object.keys(NUMBERS)];
    const near = names.find((name) => isNear(field, name));
    throw new Error(`"${field}" is not a field; ${near ? `did you mean ${near}? ` : ""}fields are ${names.join(", ")}`);
  }
  if (value === "") throw new Error(`${field}= needs a value, like ${field}=${VALUES[field] ?? "shop/cart"}`);
  if (comparison !== "=") throw new Error(`${field} is a text; write ${field}=${value} or ${field}!=${value}`);
  const wanted = value.toLowerCase();
  const fits = known === "why" ? (text: string) => text.includes(wanted) : (text: string) => isLike(wanted, text);
  return ({ texts }) => texts[known]?.some((text) => fits(text.toLowerCase())) ?? false;
}

function number(field: NumberField, comparison: string, value: string): Filter {
  const unit = NUMBERS[field];
  const example = `${field}${comparison}${field === "port" ? 8080 : EXAMPLES[unit]}`;
  if (value === "") throw new Error(`${field}${comparison} needs a number, like ${example}`);
  const [, digits = "", suffix = ""] = /^(\d+\.?\d*|\.\d+)?(.*)$/su.exec(value) ?? [];
  const factors = UNITS[unit] ?? {};
  const factor = Object.hasOwn(factors, suffix) ? factors[suffix] : undefined;
  if (digits === "" || factor === undefined) {
    throw new Error(`"${value}" is not a value of ${field}; write it like ${example}`);
  }
  const wanted = Number(digits) * factor;
  const holds = (found: number) => {
    if (comparison === ">") return found > wanted;
    if (comparison === "<") return found < wanted;
    if (comparison === ">=") return found >= wanted;
    if (comparison === "<=") return found <= wanted;
    return Math.abs(found - wanted) <= Number.EPSILON * Math.max(1, Math.abs(found));
  };
  return ({ numbers }) => all(numbers[field]).some(holds);
}

/** Whether one letter more, less or other, or two that changed places, make one word the other. */
function isNear(a: string, b: string): boolean {
  if (a.length < 2 || Math.abs(a.length - b.length) > 1) return false;
  let i = 0;
  while (i < a.length && a[i] === b[i]) i++;
  const [rest, other] = [a.slice(i), b.slice(i)];
  const isSwapped = rest[0] === other[1] && rest[1] === other[0] && rest.slice(2) === other.slice(2);
  return isSwapped || rest.slice(1) === other || rest === other.slice(1) || rest.slice(1) === other.slice(1);
}

/** Whether `*` in the pattern can stand for something so that it is the text. */
function isLike(pattern: string, text: string): boolean {
  const [first = "", ...parts] = pattern.split("*");
  if (!text.startsWith(first)) return false;
  const last = parts.pop();
  if (last === undefined) return text === first;
  let rest = text.slice(first.length);
  for (const part of parts) {
    const at = rest.indexOf(part);
    if (at < 0) return false;
    rest = rest.slice(at + part.length);
  }
  return rest.endsWith(last);
}
