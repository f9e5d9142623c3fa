//! The name of a service is unique within its namespace only: what is summed, matched or looked up
//! by a name without the namespace counts two services as one.

use promql_parser::label::Labels;
use promql_parser::parser::{AggregateExpr, BinaryExpr, Expr, LabelModifier};

use super::promql::visit;

/// The labels that name a service; each has one beside it with the namespace.
pub const NAMES: [&str; 5] = ["client", "server", "service", "claimant", "holder"];

/// The label with the namespace of the service that `name` names.
pub fn of(name: &str) -> String {
    format!("{name}_namespace")
}

/// Reports what in an expression is summed or matched by a name without its namespace.
pub fn check_expression(expr: &Expr, report: &mut impl FnMut(String)) {
    visit(expr, &mut |expr| {
        let labels = match expr {
            Expr::Aggregate(AggregateExpr { modifier, .. }) => modifier.as_ref(),
            Expr::Binary(BinaryExpr { modifier, .. }) => {
                modifier.as_ref().and_then(|modifier| modifier.matching.as_ref())
            }
            _ => None,
        };
        if let Some(LabelModifier::Include(Labels { labels })) = labels {
            for name in NAMES {
                let has = |label: &str| labels.iter().any(|other| other == label);
                if has(name) && !has(&of(name)) {
                    report(format!("({}) needs {} beside {name}", labels.join(", "), of(name)));
                }
            }
        }
    });
}

/// Reports queries in the text of an alert that look for a name in every namespace.
pub fn check_query(action: &str, report: &mut impl FnMut(String)) {
    for name in NAMES {
        let times = |label: &str| action.matches(&format!("{label}=%q")).count();
        if times(name) > times(&of(name)) {
            report(format!("a query selects {name} without {}: {}", of(name), action.trim()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::promql::parse;
    use super::*;

    #[test]
    fn a_name_without_its_namespace_is_reported() {
        let check = |expr: &str, expected: &str| {
            let mut problems = Vec::new();
            check_expression(&parse(expr).unwrap(), &mut |problem| problems.push(problem));
            assert_eq!(problems.join("; "), expected, "{expr}");
        };
        check("sum by (client, client_namespace) (a)", "");
        check("sum(a) + max without (server) (a)", "");
        check("sum by (server, port) (a)", "(server, port) needs server_namespace beside server");
        check("topk(3, a or on (holder) b)", "(holder) needs holder_namespace beside holder");
        let query = |action: &str, expected: &str| {
            let mut problems = Vec::new();
            check_query(action, &mut |problem| problems.push(problem));
            assert_eq!(problems.join("; "), expected, "{action}");
        };
        query(r#"printf "a{server=%q, server_namespace=%q}" $x $y | query"#, "");
        query(
            r#" printf "a{server=%q, server_namespace=%q} - b{server=%q}" | query"#,
            r#"a query selects server without server_namespace: printf "a{server=%q, server_namespace=%q} - b{server=%q}" | query"#,
        );
    }
}
