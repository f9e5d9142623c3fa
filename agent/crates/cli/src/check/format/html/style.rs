//! How the HTML report looks, on screens and on paper.

pub(super) const CSS: &str = "
:root { color-scheme: light; --error: #b3261e; --warning: #8a5a00; --ok: #1b6e3c; --line: #d5d9e0; --soft: #5b6472; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; font: 15px/1.45 system-ui, sans-serif; color: #1c2330; background: #fff; }
h1 { margin: 0; font-size: 1.6rem; }
h2 { margin: 2rem 0 .6rem; font-size: 1.15rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { margin: 0; font-size: 1rem; }
h3 small { font-weight: normal; color: var(--soft); }
header p { margin: .2rem 0 0; color: var(--soft); }
a { color: inherit; }
.note { padding: .6rem .9rem; border: 2px solid var(--error); border-radius: .4rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; margin-top: 1.2rem; }
.tile { flex: 1 1 8rem; padding: .7rem .9rem; border: 1px solid var(--line); border-radius: .5rem; }
.tile b { display: block; font-size: 1.6rem; }
.tile.none { color: var(--soft); }
.tile.error b, td.error { color: var(--error); } .tile.warning b, td.warning { color: var(--warning); } .tile.ok b, td.ok { color: var(--ok); }
.card { margin: .7rem 0; padding: .7rem .9rem; border: 1px solid var(--line); border-left: 6px solid var(--soft); border-radius: .4rem; break-inside: avoid; overflow-wrap: anywhere; }
.card.error { border-left-color: var(--error); } .card.error h3 { color: var(--error); }
.card.warning { border-left: 6px double var(--warning); } .card.warning h3 { color: var(--warning); }
.card p { margin: .3rem 0; } .card ul { margin: .3rem 0; padding-left: 1.2rem; }
.evidence { color: var(--soft); font-size: .85rem; } .evidence span { margin-right: .9rem; } .evidence i { font-style: normal; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; }
th, td { text-align: left; padding: .28rem .6rem .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr { break-inside: avoid; }
svg { height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: #1c2330; }
svg rect { fill: #f4f6f9; stroke: #9aa3b2; }
svg path { fill: none; stroke: #9aa3b2; stroke-width: 1.5; }
svg path.warning { stroke: var(--warning); stroke-width: 2; stroke-dasharray: 7 4; }
svg path.error { stroke: var(--error); stroke-width: 3; stroke-dasharray: 2 3; }
svg text.warning { fill: var(--warning); font-weight: 700; } svg text.error { fill: var(--error); font-weight: 700; }
@media print { body { max-width: none; padding: 0; font-size: 11px; } a { text-decoration: none; } .scroll { overflow: visible; } svg { max-width: 100%; } }
";
