// Checks dashboards strictly against the types of Grafana's own schema: the dashboard and its
// panels, and each panel's options and field settings against those of its kind.
import { readFileSync } from 'node:fs';
import { createGenerator } from 'ts-json-schema-generator';
import Ajv from 'ajv';

const TYPES = 'node_modules/@grafana/schema/dist/types/raw';
const KINDS = { timeseries: 'timeseries', stat: 'stat', table: 'table', heatmap: 'heatmap', nodeGraph: 'nodegraph' };
const ANNOTATION = ['expr', 'titleFormat', 'textFormat'];

const ajv = new Ajv({ strict: false, allErrors: true });
const checker = (path, type) => ajv.compile(createGenerator({
  path, type, skipTypeCheck: true, additionalProperties: false, tsconfig: undefined,
}).createSchema(type));

const dashboard = checker(`${TYPES}/dashboard/x/types.gen.d.ts`, 'Dashboard');
const kinds = {};
for (const [kind, folder] of Object.entries(KINDS)) {
  const path = `${TYPES}/composable/${folder}/panelcfg/x/types.gen.d.ts`;
  const text = readFileSync(path, 'utf8');
  kinds[kind] = {
    options: checker(path, 'Options'),
    custom: text.includes('interface FieldConfig') ? checker(path, 'FieldConfig') : null,
  };
}

let wrong = 0;
const check = (what, validate, value, partial) => {
  if (!validate || validate(value)) return;
  for (const { instancePath, keyword, message, params } of validate.errors) {
    // Settings are given where they differ from the default.
    if (partial && keyword === 'required') continue;
    wrong += 1;
    console.error(`${what}${instancePath}: ${message} ${JSON.stringify(params)}`);
  }
};
for (const file of process.argv.slice(2)) {
  const board = JSON.parse(readFileSync(file, 'utf8'));
  // What Prometheus' data source adds to an annotation is not in the schema, which allows nothing.
  for (const annotation of board.annotations.list) for (const own of ANNOTATION) delete annotation[own];
  check(file, dashboard, board, false);
  for (const panel of board.panels.filter((one) => one.type !== 'row')) {
    const kind = kinds[panel.type];
    if (!kind) {
      wrong += 1;
      console.error(`${file}: ${panel.title}: unknown panel type ${panel.type}`);
      continue;
    }
    check(`${file}: ${panel.title}: options`, kind.options, panel.options, true);
    check(`${file}: ${panel.title}: custom`, kind.custom, panel.fieldConfig.defaults.custom, true);
  }
}
process.exit(wrong ? 1 : 0);
