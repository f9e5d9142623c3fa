// Bundles the page into the folder named on the command line.
import { build } from 'esbuild';
import { copyFile, mkdir } from 'node:fs/promises';

const folder = process.argv[2];
await mkdir(folder, { recursive: true });
await build({
  entryPoints: ['main.tsx'],
  bundle: true,
  minify: true,
  outfile: `${folder}/draw.js`,
  format: 'iife',
  jsx: 'automatic',
  // Their .mjs files import packages the way Node does, which gives objects for components.
  alias: Object.fromEntries(['ui', 'data', 'schema'].map((name) => [`@grafana/${name}`, `./node_modules/@grafana/${name}/dist/cjs/index.cjs`])),
  define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
  loader: { '.svg': 'dataurl', '.png': 'dataurl', '.woff': 'dataurl', '.woff2': 'dataurl', '.ttf': 'dataurl' },
  logLevel: 'error',
});
await copyFile('index.html', `${folder}/index.html`);
