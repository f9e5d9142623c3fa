//! Panels that are neither numbers, lines nor tables: the service map, and heat maps.

use serde_json::json;

use super::{Panel, Query, Unit, id};

impl Panel {
    /// A service map: `edges` has `id`, `source` and `target`, its value is written at the edge.
    /// `nodes` has `id`, `title` and `subtitle` of every end of an edge; its value is the color, from
    /// 0 (green) to 1 (red).
    pub fn graph(
        title: &'static str,
        description: impl Into<String>,
        unit: Unit,
        width: u64,
        nodes: impl Into<String>,
        edges: impl Into<String>,
    ) -> Self {
        let options = json!({"zoomMode": "cooperative", "layoutAlgorithm": "layered", "nodes": {}, "edges": {"mainStatUnit": unit.as_str()}});
        let mut panel = Self::new("nodeGraph", title, description, unit, width, options);
        for (id, expr) in [("nodes", nodes.into()), ("edges", edges.into())] {
            panel.queries.push(Query {
                id: id.to_owned(),
                expr,
                legend: String::new(),
                format: "table",
                instant: true,
            });
        }
        panel.transformations = vec![json!({"id": "organize", "options": {
            "excludeByName": {"Time": true}, "indexByName": {}, "includeByName": {},
            "renameByName": {"Value #nodes": "color", "Value #edges": "mainstat"},
        }})];
        panel.overrides.push(json!({
            "matcher": {"id": "byName", "options": "color"},
            "properties": [{"id": "color", "value": {"mode": "continuous-GrYlRd"}}],
        }));
        panel
    }

    /// How durations are spread, over time; `expr` gives rates of buckets.
    pub fn heat(
        title: &'static str,
        description: impl Into<String>,
        width: u64,
        expr: impl Into<String>,
    ) -> Self {
        let options = json!({
            "calculate": false, "cellGap": 1, "cellValues": {"unit": Unit::RequestsPerSecond.as_str()},
            "color": {"mode": "scheme", "scheme": "Oranges", "exponent": 0.5, "fill": "dark-orange", "scale": "exponential", "steps": 64, "reverse": false},
            "exemplars": {"color": "rgba(255,0,255,0.7)"}, "filterValues": {"le": 1e-9},
            "legend": {"show": true}, "rowsFrame": {"layout": "auto"}, "showValue": "never",
            "tooltip": {"mode": "single", "showColorScale": false, "yHistogram": false},
            "yAxis": {"axisPlacement": "left", "unit": Unit::Seconds.as_str(), "reverse": false},
        });
        let mut panel = Self::new("heatmap", title, description, Unit::Seconds, width, options);
        panel.queries.push(Query {
            id: id(0),
            expr: expr.into(),
            legend: "{{le}}".to_owned(),
            format: "heatmap",
            instant: false,
        });
        panel
    }
}
