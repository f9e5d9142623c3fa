//! Panels as values, and their JSON as Grafana reads it.
//!
//! Every panel has a title, a description and a unit: they are arguments of its constructor.

use serde_json::{Value, json};

mod map;

pub use super::unit::Unit;

/// One panel.
pub struct Panel {
    kind: &'static str,
    title: &'static str,
    description: String,
    unit: Unit,
    /// In columns of the grid.
    pub width: u64,
    queries: Vec<Query>,
    steps: Vec<Value>,
    options: Value,
    custom: Value,
    overrides: Vec<Value>,
    transformations: Vec<Value>,
    limits: Option<(f64, f64)>,
    no_value: Option<&'static str>,
}

struct Query {
    id: String,
    expr: String,
    legend: String,
    format: &'static str,
    instant: bool,
}

/// The text of a table cell without a value.
const NO_CELL: &str = "-";
/// The text of a panel without data that is never empty as long as agents are scraped.
const NO_DATA: &str = "No data: are the agents scraped and the recording rules loaded?";

/// A column of a table.
pub struct Column {
    pub expr: String,
    pub title: &'static str,
    pub unit: Unit,
    /// Red from this value on.
    pub bad_from: Option<f64>,
}

// === impl Panel ===

impl Panel {
    fn new(
        kind: &'static str,
        title: &'static str,
        description: impl Into<String>,
        unit: Unit,
        width: u64,
        options: Value,
    ) -> Self {
        Self {
            kind,
            title,
            description: description.into(),
            unit,
            width,
            queries: Vec::new(),
            steps: vec![json!({"color": "green", "value": null})],
            options,
            custom: json!({}),
            overrides: Vec::new(),
            transformations: Vec::new(),
            limits: None,
            no_value: None,
        }
    }

    /// One number, coloured by its thresholds.
    pub fn number(
        title: &'static str,
        description: impl Into<String>,
        unit: Unit,
        width: u64,
        expr: impl Into<String>,
    ) -> Self {
        let options = json!({
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
            "colorMode": "background", "graphMode": "area", "justifyMode": "center",
            "textMode": "value", "orientation": "auto", "wideLayout": true,
            "showPercentChange": false, "percentChangeColorMode": "standard",
        });
        Self::new("stat", title, description, unit, width, options).query(expr, "")
    }

    /// Lines over time.
    pub fn lines(
        title: &'static str,
        description: impl Into<String>,
        unit: Unit,
        width: u64,
    ) -> Self {
        let options = json!({
            "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": true},
            "tooltip": {"mode": "multi", "sort": "desc"},
        });
        let mut panel = Self::new("timeseries", title, description, unit, width, options);
        panel.custom = json!({
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never",
            "spanNulls": false, "lineInterpolation": "linear", "thresholdsStyle": {"mode": "off"},
        });
        if matches!(unit, Unit::Ratio) {
            // A line of zeros gets an axis up to 5 %, not to 10000 %.
            panel.custom["axisSoftMax"] = json!(0.05);
        }
        panel
    }

    /// A table with a row per label set and a column per expression; `labels` are its first
    /// columns, each with its heading.
    pub fn table(
        title: &'static str,
        description: impl Into<String>,
        width: u64,
        labels: &[(&str, &str)],
        columns: &[Column],
    ) -> Self {
        let options = json!({
            "showHeader": true, "cellHeight": "sm",
            "sortBy": columns.iter().take(2).map(|column| json!({"displayName": column.title, "desc": true})).collect::<Vec<_>>(),
        });
        let mut panel = Self::new("table", title, description, Unit::Count, width, options);
        panel.custom = json!({"align": "auto", "cellOptions": {"type": "auto"}, "inspect": false, "filterable": true});
        panel.no_value = Some(NO_CELL);
        let mut names = json!({});
        let mut order = json!({});
        for (index, (label, heading)) in labels.iter().enumerate() {
            names[label] = json!(heading);
            order[label] = json!(index);
            // A port is a label, not a number to be rounded.
            panel.overrides.push(json!({
                "matcher": {"id": "byName", "options": heading},
                "properties": [
                    {"id": "unit", "value": "string"},
                    {"id": "noValue", "value": NO_CELL},
                ],
            }));
        }
        for (index, column) in columns.iter().enumerate() {
            let Column { expr, title, unit, bad_from } = column;
            let id = id(index);
            panel.queries.push(Query {
                id: id.clone(),
                expr: expr.clone(),
                legend: String::new(),
                format: "table",
                instant: true,
            });
            // Grafana numbers the values only where there are several.
            let value =
                if columns.len() == 1 { "Value".to_owned() } else { format!("Value #{id}") };
            names[&value] = json!(title);
            order[&value] = json!(labels.len() + index);
            // The panel's text is for a table without rows.
            let mut properties = vec![
                json!({"id": "unit", "value": unit.as_str()}),
                json!({"id": "noValue", "value": NO_CELL}),
            ];
            if let Some(bad) = bad_from {
                properties
                    .push(json!({"id": "custom.cellOptions", "value": {"type": "color-text"}}));
                properties.push(json!({"id": "thresholds", "value": thresholds(&[
                    json!({"color": "text", "value": null}), json!({"color": "red", "value": bad}),
                ])}));
            }
            panel.overrides.push(
                json!({"matcher": {"id": "byName", "options": title}, "properties": properties}),
            );
        }
        panel.transformations = vec![
            json!({"id": "merge", "options": {}}),
            json!({"id": "organize", "options": {
                "excludeByName": {"Time": true, "cluster": true},
                "indexByName": order, "renameByName": names, "includeByName": {},
            }}),
        ];
        panel
    }

    /// Adds a query; `legend` names each of its series.
    pub fn query(mut self, expr: impl Into<String>, legend: impl Into<String>) -> Self {
        self.queries.push(Query {
            id: id(self.queries.len()),
            expr: expr.into(),
            legend: legend.into(),
            format: "time_series",
            instant: false,
        });
        self
    }

    /// `color` from `value` on.
    pub fn from(mut self, value: f64, color: &'static str) -> Self {
        self.steps.push(json!({"color": color, "value": value}));
        self
    }

    /// Below its first threshold it is `color`, not green.
    pub fn else_(mut self, color: &'static str) -> Self {
        self.steps[0] = json!({"color": color, "value": null});
        self
    }

    /// Draws the thresholds as lines.
    pub fn marked(mut self) -> Self {
        self.custom["thresholdsStyle"] = json!({"mode": "dashed"});
        self
    }

    /// Stacked, because the lines add up to a total.
    pub fn stacked(mut self) -> Self {
        self.custom["stacking"] = json!({"mode": "normal", "group": "A"});
        self.custom["fillOpacity"] = json!(40);
        self
    }

    /// A logarithmic axis, for ranges from microseconds to seconds.
    pub fn by_factors(mut self) -> Self {
        self.custom["scaleDistribution"] = json!({"type": "log", "log": 10});
        // Areas mean nothing there.
        self.custom["fillOpacity"] = json!(0);
        self
    }

    /// Minimum and maximum of the axis.
    pub fn between(mut self, low: f64, high: f64) -> Self {
        self.limits = Some((low, high));
        if let Some(custom) = self.custom.as_object_mut() {
            custom.remove("axisSoftMax");
        }
        self
    }

    /// The text of a panel without data.
    pub fn or_else(mut self, text: &'static str) -> Self {
        self.no_value = Some(text);
        self
    }

    /// A table with the least of its first column on top.
    pub fn least_first(mut self) -> Self {
        for column in self.options["sortBy"].as_array_mut().into_iter().flatten() {
            column["desc"] = json!(false);
        }
        self
    }

    /// The width of a column of a table, in pixels.
    pub fn wide(mut self, column: &'static str, pixels: u64) -> Self {
        self.overrides.push(json!({
            "matcher": {"id": "byName", "options": column},
            "properties": [{"id": "custom.width", "value": pixels}],
        }));
        self
    }

    /// Colors of the texts of a column of a table.
    pub fn colored(mut self, column: &'static str, colors: &[(&str, &str)]) -> Self {
        let mut options = json!({});
        for (index, (text, color)) in colors.iter().enumerate() {
            options[text] = json!({"color": color, "index": index});
        }
        self.overrides.push(json!({
            "matcher": {"id": "byName", "options": column},
            "properties": [
                {"id": "custom.cellOptions", "value": {"type": "color-text"}},
                {"id": "mappings", "value": [{"type": "value", "options": options}]},
            ],
        }));
        self
    }

    /// Rows of a table link to `url`, which may name columns.
    pub fn leads_to(mut self, column: &'static str, title: &'static str, url: &str) -> Self {
        let link = json!({"title": title, "url": url, "targetBlank": false});
        self.overrides.push(json!({
            "matcher": {"id": "byName", "options": column},
            "properties": [{"id": "links", "value": [link]}],
        }));
        self
    }

    pub const fn title(&self) -> &'static str {
        self.title
    }

    /// Whether it has a text for an empty result.
    pub fn may_be_empty(&self) -> bool {
        self.no_value.is_some_and(|text| text != NO_CELL)
    }

    /// Its expressions.
    pub fn expressions(&self) -> impl Iterator<Item = &str> {
        self.queries.iter().map(|query| query.expr.as_str())
    }

    /// The JSON of the panel with this number, at this position.
    pub fn json(&self, number: u64, x: u64, y: u64, height: u64) -> Value {
        let Self {
            kind,
            title,
            description,
            unit,
            width,
            queries,
            steps,
            options,
            custom,
            overrides,
            transformations,
            limits,
            no_value,
        } = self;
        let targets: Vec<Value> = queries.iter().map(Query::json).collect();
        let mut defaults = json!({
            "unit": unit.as_str(), "thresholds": thresholds(steps), "custom": custom,
            "mappings": [], "color": {"mode": if *kind == "timeseries" { "palette-classic" } else { "thresholds" }},
        });
        if let Some((low, high)) = limits {
            defaults["min"] = json!(low);
            defaults["max"] = json!(high);
        } else if *kind == "timeseries" && custom.get("scaleDistribution").is_none() {
            defaults["min"] = json!(0);
        }
        defaults["noValue"] = json!(no_value.unwrap_or(NO_DATA));
        json!({
            "id": number, "type": kind, "title": title, "description": description,
            "datasource": datasource(), "targets": targets,
            "fieldConfig": {"defaults": defaults, "overrides": overrides},
            "options": options, "transformations": transformations,
            "gridPos": {"x": x, "y": y, "w": width, "h": height},
        })
    }
}

impl Query {
    fn json(&self) -> Value {
        let Self { id, expr, legend, format, instant } = self;
        json!({
            "refId": id, "datasource": datasource(), "expr": expr, "legendFormat": legend,
            "format": format, "instant": instant, "range": !instant, "editorMode": "code",
        })
    }
}

/// The `refId` of a query: A, B, …
fn id(index: usize) -> String {
    char::from(b'A' + u8::try_from(index % 26).unwrap_or(0)).to_string()
}

fn thresholds(steps: &[Value]) -> Value {
    json!({"mode": "absolute", "steps": steps})
}

/// The one that the reader chose.
pub fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}
