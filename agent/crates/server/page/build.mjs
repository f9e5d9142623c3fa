// Makes page.js from src/: `node build.mjs FILE`. Types are checked first; the licences of the
// libraries in it are kept at its end.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { build } from "esbuild";

const [target] = process.argv.slice(2);
if (!target) throw new Error("usage: node build.mjs FILE");
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "--project", "."], { stdio: "inherit" });
const licence = readFileSync("node_modules/@dagrejs/dagre/LICENSE", "utf8").trim();
await build({
  entryPoints: ["src/main.ts"],
  outfile: target,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  banner: { js: "// Made from agent/crates/server/page by `cargo xtask page`: do not edit.\n\"use strict\";" },
  footer: { js: `/*\n@dagrejs/dagre and @dagrejs/graphlib are in this file:\n\n${licence}\n*/` },
  logLevel: "warning",
});
