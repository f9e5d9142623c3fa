// Draws our dashboards with Grafana's own components and data from the Prometheus that serves this
// page: numbers, lines and tables as Grafana draws them. Heat maps and node graphs are not among
// the published components; those two are drawn here in their spirit.
import { createRoot } from 'react-dom/client';
import { useEffect, useState } from 'react';
import {
  applyFieldOverrides, createTheme, dateTime, EventBusSrv, FieldType, getDisplayProcessor, getValueFormat,
  formattedValueToString, standardEditorsRegistry, standardFieldConfigEditorRegistry, ThemeContext,
  toDataFrame, type DataFrame,
} from '@grafana/data';
import { BigValue, BigValueColorMode, BigValueGraphMode, BigValueJustifyMode, BigValueTextMode,
  GlobalStyles, PanelChrome, PanelContextProvider, Table, TimeSeries } from '@grafana/ui';

const theme = createTheme({ colors: { mode: 'dark' } });
// A screen 1920 px wide has as much beside Grafana's menu.
const COLUMN = 65;
const ROW = 38;
const REFRESH = 5000;
const BUS = new EventBusSrv();
const chosen = new URLSearchParams(location.search);
const BOARDS = ['portolan-overview', 'portolan-service', 'portolan-ports', 'portolan-connectivity', 'portolan-agent'];
const uid = chosen.get('dashboard') ?? location.pathname.match(/\/d\/([^/]+)/)?.[1] ?? BOARDS[0];
const MINUTES = Number(chosen.get('minutes') ?? 5);

// What the editors of Grafana's own panels would register.
standardEditorsRegistry.setInit(() => []);
standardFieldConfigEditorRegistry.setInit(() => ['unit', 'thresholds', 'links', 'color', 'min', 'max', 'noValue', 'mappings', 'displayName', 'decimals'].map((id) => ({
  id, path: id, name: id, description: '', editor: () => null, override: () => null,
  process: (value: any) => value, shouldApply: () => true,
} as any)));

const filled = (expr: string, variables: any[]) => {
  let text = expr.replaceAll('$__rate_interval', '30s').replaceAll('$__range', `${MINUTES}m`);
  for (const { name } of variables) {
    text = text.replaceAll(`$${name}`, chosen.get(`var-${name}`) || '.*');
  }
  return text;
};

const ask = async (target: any, variables: any[]) => {
  const end = Date.now() / 1000;
  const query = encodeURIComponent(filled(target.expr, variables));
  const step = Math.max(1, Math.round((MINUTES * 60) / 240));
  const url = target.instant
    ? `/api/v1/query?query=${query}`
    : `/api/v1/query_range?query=${query}&start=${end - MINUTES * 60}&end=${end}&step=${step}`;
  const answer = await (await fetch(url)).json();
  if (answer.status !== 'success') throw new Error(`${target.expr}: ${answer.error}`);
  return answer.data.result as any[];
};

const legend = (format: string, labels: any) => format.replace(/{{\s*(\w+)\s*}}/g, (_, name) => labels[name] ?? '');

// Grafana's own work behind a panel: options and overrides become fields that know how they look.
const dressed = (frames: DataFrame[], panel: any) => {
  const { defaults, overrides } = panel.fieldConfig;
  const done = applyFieldOverrides({
    data: frames, fieldConfig: { defaults: { ...defaults, custom: defaults.custom }, overrides: [] }, theme,
    replaceVariables: (text) => text, timeZone: 'browser',
  });
  for (const frame of done) {
    for (const field of frame.fields) {
      field.config = { ...field.config, custom: { ...defaults.custom } };
      const properties = overrides.filter((one: any) => one.matcher.options === (field.config.displayName ?? field.name))
        .flatMap((one: any) => one.properties);
      for (const { id, value } of properties) {
        if (id === 'links') continue;
        if (id.startsWith('custom.')) field.config.custom[id.slice(7)] = value;
        else (field.config as any)[id] = value;
      }
      if (field.type === FieldType.number) {
        field.config.color = properties.some((one: any) => one.id === 'thresholds') ? { mode: 'thresholds' as any } : defaults.color;
      }
      field.display = getDisplayProcessor({ field, theme, timeZone: 'browser' });
    }
  }
  return done;
};

// What is no number is a gap, as Grafana draws it.
const figure = (text: string) => (text === 'NaN' ? null : Number(text));

const seriesFrames = async (panel: any, variables: any[]) => {
  const frames: DataFrame[] = [];
  for (const target of panel.targets) {
    for (const { metric, values } of await ask(target, variables)) {
      const name = legend(target.legendFormat, metric) || panel.title;
      frames.push(toDataFrame({
        refId: target.refId,
        fields: [
          { name: 'Time', type: FieldType.time, values: values.map((point: any) => point[0] * 1000) },
          { name, type: FieldType.number, values: values.map((point: any) => figure(point[1])), config: { displayName: name }, labels: metric },
        ],
      }));
    }
  }
  return dressed(frames, panel);
};

// As the transformations `merge` and `organize` do it.
const tableFrames = async (panel: any, variables: any[]) => {
  const organize = panel.transformations.find((one: any) => one.id === 'organize').options;
  const rows = new Map<string, any>();
  for (const target of panel.targets) {
    for (const { metric, value } of await ask(target, variables)) {
      const labels = Object.fromEntries(Object.entries(metric).filter(([name]) => name in organize.renameByName));
      const key = JSON.stringify(Object.entries(labels).sort());
      const column = panel.targets.length === 1 ? 'Value' : `Value #${target.refId}`;
      rows.set(key, { ...labels, ...rows.get(key), [column]: figure(value[1]) });
    }
  }
  const columns = Object.entries(organize.indexByName).sort((a: any, b: any) => a[1] - b[1]).map(([name]) => name);
  let list = [...rows.values()];
  const headings = Object.entries(organize.renameByName) as [string, string][];
  const sorting = panel.options.sortBy.map(({ displayName, desc }: any) => ({
    by: headings.find(([, heading]) => heading === displayName)![0], sign: desc ? -1 : 1,
  }));
  list.sort((a, b) => sorting.map(({ by, sign }: any) => sign * ((a[by] ?? -1) - (b[by] ?? -1))).find((order: number) => order) ?? 0);
  const used = columns.filter((name) => name.startsWith('Value') || list.some((row) => row[name]));
  const frame = toDataFrame({
    fields: used.map((name) => ({
      name: organize.renameByName[name],
      type: name.startsWith('Value') ? FieldType.number : FieldType.string,
      values: list.map((row) => row[name] ?? (name.startsWith('Value') ? null : '')),
      config: { custom: {} },
    })),
  });
  return dressed([frame], panel);
};

const heatColumns = async (panel: any, variables: any[]) => {
  const series = await ask({ ...panel.targets[0], instant: false }, variables);
  series.sort((a, b) => Number(a.metric.le.replace('+Inf', 'Infinity')) - Number(b.metric.le.replace('+Inf', 'Infinity')));
  return series.map((one, index) => ({
    le: one.metric.le,
    cells: one.values.map(([at, value]: any, n: number) => ({
      at, value: Math.max(0, Number(value) - (index ? Number(series[index - 1].values[n]?.[1] ?? 0) : 0)),
    })),
  }));
};

function Heat({ data, width, height }: any) {
  const used = data.filter((row: any) => row.cells.some((cell: any) => cell.value > 1e-9));
  const most = Math.max(1e-9, ...used.flatMap((row: any) => row.cells.map((cell: any) => cell.value)));
  const high = (height - 30) / Math.max(1, used.length);
  const unit = getValueFormat('s');
  return (
    <svg width={width} height={height}>
      {used.map((row: any, n: number) => {
        const y = height - 20 - (n + 1) * high;
        const wide = (width - 64) / row.cells.length;
        return (
          <g key={row.le}>
            <text x={58} y={y + 4} textAnchor="end" fontSize={11} fill={theme.colors.text.secondary}>
              {row.le === '+Inf' ? '∞' : formattedValueToString(unit(Number(row.le)))}
            </text>
            {row.cells.map((cell: any, x: number) => cell.value > 1e-9 && (
              <rect key={cell.at} x={64 + x * wide} y={y} width={wide} height={Math.max(1, high - 1)} fill="#ff9830" opacity={0.12 + 0.88 * Math.sqrt(cell.value / most)} />
            ))}
          </g>
        );
      })}
      {[0, 0.5, 1].map((part) => {
        const cells = used[0]?.cells ?? [];
        const cell = cells[Math.min(cells.length - 1, Math.round(part * cells.length))];
        return cell && (
          <text key={part} x={64 + part * (width - 64)} y={height - 4} fontSize={11} textAnchor={part === 0 ? 'start' : part === 1 ? 'end' : 'middle'} fill={theme.colors.text.secondary}>
            {new Date(cell.at * 1000).toLocaleTimeString('en-GB')}
          </text>
        );
      })}
    </svg>
  );
}

// As Grafana's color mode continuous-GrYlRd.
const stateColor = (value: number) => (value >= 1 ? '#f2495c' : value > 0 ? '#fade2a' : '#73bf69');

function Graph({ graph, width, height }: any) {
  const { nodes, edges: data } = graph;
  const names: string[] = nodes.map((node: any) => node.id);
  // Grafana stops with an error at an edge whose end is not a node.
  for (const { source, target } of data) {
    if (!names.includes(source) || !names.includes(target)) throw new Error(`${source} → ${target}: no such node`);
  }
  const node = Object.fromEntries(nodes.map((one: any) => [one.id, one]));
  // A layer below everything that calls it; as many rounds as there are names end any ring.
  const layer = Object.fromEntries(names.map((name) => [name, 0]));
  for (let round = 0; round < names.length; round += 1) {
    for (const { source, target } of data) {
      if (source !== target && layer[target] <= layer[source] && layer[source] + 1 < names.length) layer[target] = layer[source] + 1;
    }
  }
  const layers = Math.max(0, ...Object.values(layer)) + 1;
  const place = Object.fromEntries(names.map((name) => {
    const peers = names.filter((other) => layer[other] === layer[name]);
    return [name, {
      x: ((layer[name] + 0.5) / layers) * width,
      // Every other layer a little lower: no line runs through a node that it does not end at.
      y: ((peers.indexOf(name) + 0.5) / peers.length) * (height - 60) + (layer[name] % 2) * 28,
    }];
  }));
  const unit = getValueFormat('reqps');
  return (
    <svg width={width} height={height}>
      <defs>
        <marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6" markerHeight="6" orient="auto"><path d="M0 0L10 5L0 10z" fill="#8e8e99" /></marker>
      </defs>
      {data.map(({ source, target, mainstat }: any) => {
        const from = place[source]; const to = place[target];
        const far = Math.hypot(to.x - from.x, to.y - from.y) || 1;
        const [dx, dy] = [(to.x - from.x) / far, (to.y - from.y) / far];
        return (
          <g key={source + target}>
            <line x1={from.x + dx * 16} y1={from.y + dy * 16} x2={to.x - dx * 17} y2={to.y - dy * 17} stroke="#8e8e99" markerEnd="url(#tip)" />
            <text x={(from.x + to.x) / 2} y={(from.y + to.y) / 2 - 5} fontSize={10} textAnchor="middle" fill={theme.colors.text.secondary}>
              {formattedValueToString(unit(mainstat, 1))}
            </text>
          </g>
        );
      })}
      {names.map((name) => (
        <g key={name}>
          <circle cx={place[name].x} cy={place[name].y} r={14} fill="#181b1f" stroke={stateColor(node[name].color)} strokeWidth={3} />
          <text x={place[name].x} y={place[name].y + 29} fontSize={12} textAnchor="middle" fill={theme.colors.text.primary}>{name}</text>
          {node[name].subtitle && (
            <text x={place[name].x} y={place[name].y + 42} fontSize={10} textAnchor="middle" fill={stateColor(node[name].color)}>{node[name].subtitle}</text>
          )}
        </g>
      ))}
    </svg>
  );
}

const load = (panel: any, variables: any[]) => {
  if (panel.type === 'table') return tableFrames(panel, variables);
  if (panel.type === 'heatmap') return heatColumns(panel, variables);
  if (panel.type === 'nodeGraph') {
    const [nodes, edges] = ['nodes', 'edges'].map((id) => ask(panel.targets.find((one: any) => one.refId === id), variables));
    return Promise.all([nodes, edges]).then(([all, between]) => ({
      nodes: all.map(({ metric, value }) => ({ ...metric, color: Number(value[1]) })),
      edges: between.map(({ metric, value }) => ({ ...metric, mainstat: Number(value[1]) })),
    }));
  }
  return seriesFrames(panel, variables);
};

function Body({ panel, data, width, height }: any) {
  const range = { from: dateTime(Date.now() - MINUTES * 60000), to: dateTime(), raw: { from: 'now', to: 'now' } } as any;
  if (panel.type === 'heatmap') return data.length ? <Heat data={data} width={width} height={height} /> : <Empty panel={panel} />;
  if (panel.type === 'nodeGraph') return <Graph graph={data} width={width} height={height} />;
  if (panel.type === 'table') {
    if (!data[0].length) return <Empty panel={panel} />;
    return <Table data={data[0]} width={width} height={height} columnMinWidth={60} />;
  }
  if (!data.length) return <Empty panel={panel} />;
  if (panel.type === 'stat') {
    const [time, field] = data[0].fields;
    const value = field.values.findLast((one: number | null) => one !== null);
    return (
      <BigValue theme={theme} width={width} height={height} colorMode={BigValueColorMode.Background} graphMode={BigValueGraphMode.Area}
        justifyMode={BigValueJustifyMode.Center} textMode={BigValueTextMode.Value} value={field.display!(value ?? null)}
        sparkline={{ x: time, y: field, yMin: 0 } as any} />
    );
  }
  return (
    <PanelContextProvider value={{ eventsScope: 'page', eventBus: BUS } as any}>
      <TimeSeries frames={data} width={width} height={height} timeRange={range} timeZone="browser" structureRev={Date.now()}
        legend={{ displayMode: 'list' as any, placement: 'bottom', showLegend: true, calcs: [] }} />
    </PanelContextProvider>
  );
}

function Empty({ panel }: any) {
  return <div style={{ textAlign: 'center', paddingTop: 40, color: theme.colors.text.secondary }}>{panel.fieldConfig.defaults.noValue ?? 'No data'}</div>;
}

function Panel({ panel, variables, round, loaded }: any) {
  const [data, setData] = useState<any>(null);
  const [error, setError] = useState('');
  useEffect(() => {
    load(panel, variables).then((now) => { setData(now); setError(''); }, (why) => setError(String(why))).finally(() => loaded(panel.id));
  }, [round]);
  const { x, y, w, h } = panel.gridPos;
  const [width, height] = [w * COLUMN - 8, h * ROW - 8];
  return (
    <div style={{ position: 'absolute', left: x * COLUMN, top: y * ROW, width, height }}>
      <PanelChrome title={panel.title} description={panel.description} width={width} height={height}>
        {(inner, tall) => (error ? <pre style={{ whiteSpace: 'pre-wrap', color: '#ff7383' }}>{error}</pre> : data && <Body panel={panel} data={data} width={inner} height={tall} />)}
      </PanelChrome>
    </div>
  );
}

function Page() {
  const [board, setBoard] = useState<any>(null);
  const [round, setRound] = useState(0);
  useEffect(() => { fetch(`/user/${uid}.json`).then((answer) => answer.json()).then(setBoard); }, []);
  useEffect(() => { const timer = setInterval(() => setRound((n) => n + 1), REFRESH); return () => clearInterval(timer); }, []);
  if (!board) return null;
  const variables = board.templating.list;
  const shown = board.panels.filter((panel: any) => panel.type !== 'row');
  const heads = board.panels.filter((panel: any) => panel.type === 'row');
  const bottom = Math.max(...shown.map((panel: any) => panel.gridPos.y + panel.gridPos.h));
  const loaded = (id: number) => {
    const done = ((window as any).loaded ??= new Set());
    done.add(id);
    if (done.size === shown.length) document.body.dataset.drawn = 'yes';
  };
  const choice = variables.filter((one: any) => one.name !== 'datasource');
  const choose = (name: string, value: string) => {
    chosen.set(`var-${name}`, value);
    location.search = chosen.toString();
  };
  return (
    <div style={{ width: 24 * COLUMN, margin: '8px auto', color: theme.colors.text.primary }}>
      <div style={{ display: 'flex', gap: 16, alignItems: 'baseline', marginBottom: 8 }}>
        <strong style={{ fontSize: 18 }}>{board.title}</strong>
        {choice.map((one: any) => (
          <label key={one.name} style={{ fontSize: 12 }}>
            {one.label} <input size={10} defaultValue={chosen.get(`var-${one.name}`) ?? ''} placeholder="All" onChange={() => {}} onBlur={(event) => event.target.value !== (chosen.get(`var-${one.name}`) ?? '') && choose(one.name, event.target.value)} style={{ background: '#181b1f', color: 'inherit', border: '1px solid #444' }} />
          </label>
        ))}
        <span style={{ flex: 1 }} />
        {BOARDS.map((one) => <a key={one} href={`?dashboard=${one}`} style={{ fontSize: 12, color: theme.colors.text.link }}>{one.replace('portolan-', '')}</a>)}
      </div>
      <div style={{ color: theme.colors.text.secondary, fontSize: 12, marginBottom: 8 }}>{board.description}</div>
      <div style={{ position: 'relative', height: bottom * ROW }}>
        {heads.map((row: any) => <div key={row.id} style={{ position: 'absolute', left: 2, top: row.gridPos.y * ROW + 8, fontSize: 14, fontWeight: 500 }}>{row.title}</div>)}
        {shown.map((panel: any) => <Panel key={panel.id} panel={panel} variables={variables} round={round} loaded={loaded} />)}
      </div>
    </div>
  );
}

createRoot(document.getElementById('page')!).render(
  <ThemeContext.Provider value={theme}><GlobalStyles /><Page /></ThemeContext.Provider>,
);
