// The filter language of the page against the list of examples that the commands are held to, too:
// `node filter.test.mjs filter.json`.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { build } from "esbuild";

const { outputFiles } = await build({ entryPoints: ["src/filter.ts"], bundle: true, format: "esm", write: false });
const { parse, quoted } = await import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString("base64")}`);
const { row, admitted, rejected, invalid } = JSON.parse(readFileSync(process.argv[2], "utf8"));

const filter = (text) => {
  const found = parse(text);
  if (found instanceof Error) assert.fail(`${text}: ${found.message}`);
  return found;
};
for (const text of admitted) assert.equal(filter(text)(row), true, text);
for (const text of rejected) assert.equal(filter(text)(row), false, text);
for (const [text, part] of invalid) {
  const found = parse(text);
  assert.ok(found instanceof Error, `${text} is a filter`);
  assert.ok(found.message.includes(part), `${text}: ${found.message}`);
}
// What the page writes into the field by itself reads back.
for (const name of ["shop/cart", "two words", 'a "quote" and \\', "a=b", "!x", "x>1"]) {
  const facts = { texts: { service: [name] }, numbers: {} };
  assert.equal(filter(`service=${quoted(name)}`)(facts), true, name);
}
console.log(`${admitted.length + rejected.length + invalid.length} examples`);
