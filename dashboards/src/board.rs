//! Dashboards as values, and their JSON as Grafana reads it. Positions follow from widths.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Look;
use super::panel::{Panel, datasource};

/// Columns of a dashboard's grid.
const COLUMNS: u64 = 24;
/// Which of Grafana's formats this is.
const SCHEMA_VERSION: u64 = 41;

/// A dashboard, which answers one question.
pub struct Board {
    pub uid: &'static str,
    pub title: &'static str,
    /// The question.
    pub description: &'static str,
    pub variables: Vec<Variable>,
    /// An expression to start from in Grafana's explore view.
    pub explore: &'static str,
    pub rows: Vec<Row>,
}

/// Panels of one height, side by side, below a heading.
pub struct Row {
    pub title: &'static str,
    pub height: u64,
    pub panels: Vec<Panel>,
}

/// A variable: its name, and `label_values(…)`.
#[derive(Clone, Copy)]
pub struct Variable {
    pub name: &'static str,
    pub title: &'static str,
    pub values: &'static str,
}

impl Board {
    /// File name.
    pub fn text(&self, look: &Look) -> String {
        let text = serde_json::to_string_pretty(&self.json(look)).unwrap_or_default();
        let mut text = text.replace(Look::DOCS, &look.docs);
        text.push('\n');
        text
    }

    fn json(&self, look: &Look) -> Value {
        let Self { uid, title, description, variables, explore, rows } = self;
        let mut panels = Vec::new();
        let mut y = 0;
        for Row { title, height, panels: row } in rows {
            panels.push(json!({
                "id": panels.len() + 1, "type": "row", "title": title, "collapsed": false,
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}, "panels": [],
            }));
            y += 1;
            let mut x = 0;
            for panel in row {
                if x + panel.width > COLUMNS {
                    (x, y) = (0, y + height);
                }
                panels.push(panel.json(panels.len() as u64 + 1, x, y, *height));
                x += panel.width;
            }
            y += height;
        }
        let chosen = json!({
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
            "regex": "", "hide": 0, "includeAll": false, "multi": false, "current": {"text": "", "value": ""}, "options": [], "refresh": 1,
        });
        let variables = std::iter::once(chosen).chain(variables.iter().map(Variable::json));
        json!({
            "uid": uid, "title": title, "description": description, "tags": ["portolan"],
            "schemaVersion": SCHEMA_VERSION, "editable": true, "graphTooltip": 1, "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"}, "timezone": "browser", "fiscalYearStartMonth": 0,
            "templating": {"list": variables.collect::<Vec<_>>()},
            "annotations": {"list": [alerts(), changes()]},
            "links": links(explore, &look.docs),
            "panels": panels,
        })
    }
}

impl Variable {
    fn json(&self) -> Value {
        let Self { name, title, values } = self;
        json!({
            "name": name, "label": title, "type": "query", "datasource": datasource(),
            "query": {"query": values, "refId": name}, "refresh": 2, "sort": 1,
            "includeAll": true, "allValue": ".*", "multi": false, "hide": 0, "regex": "", "options": [],
            "current": {"text": "All", "value": "$__all"},
        })
    }
}

/// When alerts fire, at the time axis of every panel.
fn alerts() -> Value {
    json!({
        "name": "Alerts", "datasource": datasource(), "enable": true, "hide": false, "iconColor": "red",
        "expr": "ALERTS{alertname=~\"Portolan.*\", alertstate=\"firing\", severity!=\"info\"}",
        "titleFormat": "{{alertname}}", "textFormat": "{{client}} → {{server}}",
    })
}

/// When services start, stop or change and backends come or go; `portolan events` has the names.
fn changes() -> Value {
    json!({
        "name": "Changes", "datasource": datasource(), "enable": true, "hide": false, "iconColor": "blue",
        "expr": "sum by (instance, kind) (increase(portolan_reported_events_total{kind=~\"service|backend\"}[1m])) > 0",
        "titleFormat": "{{kind}} changed", "textFormat": "{{instance}}: portolan events --kind {{kind}}",
    })
}

/// Links to the other dashboards with the same selection, to the runbooks, and to the explore view.
fn links(explore: &str, docs: &str) -> Value {
    let pane = json!({"portolan": {
        "datasource": "${datasource}", "range": {"from": "now-1h", "to": "now"},
        "queries": [{"refId": "A", "expr": explore}],
    }});
    // Grafana puts the variable in before the browser reads the address.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.${}".contains(&byte);
    let mut encoded = String::new();
    for byte in pane.to_string().bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    json!([
        {
            "title": "Portolan", "type": "dashboards", "tags": ["portolan"], "asDropdown": false, "icon": "dashboard",
            "includeVars": true, "keepTime": true, "targetBlank": false, "tooltip": "", "url": "",
        },
        {
            "title": "Troubleshooting", "type": "link", "tags": [], "asDropdown": false, "icon": "doc",
            "includeVars": false, "keepTime": false, "targetBlank": true, "tooltip": "Troubleshooting and runbooks",
            "url": format!("{docs}/network-troubleshooting.md"),
        },
        {
            "title": "Explore", "type": "link", "tags": [], "asDropdown": false, "icon": "external link",
            "includeVars": false, "keepTime": false, "targetBlank": true, "tooltip": "Query these metrics",
            "url": format!("/explore?schemaVersion=1&panes={encoded}"),
        },
    ])
}
