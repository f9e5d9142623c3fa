//! PromQL: label sets of panels, the names and limits in an expression, and durations.

use std::fmt::Write as _;

use anyhow::{Result, anyhow};
use promql_parser::parser::{self, BinaryExpr, Expr, VectorSelector, token};

/// An edge.
pub const EDGE: &str = "cluster, client, client_namespace, server, server_namespace, port";
/// A pair of services, whatever the port.
pub const PAIR: &str = "cluster, client, client_namespace, server, server_namespace";
/// A service, as the one that is connected to.
pub const SERVICE: &str = "cluster, server, server_namespace";

/// The variables of dashboards, and their values where none is chosen.
const VARIABLES: [(&str, &str); 6] = [
    ("$cluster", ".*"),
    ("$namespace", ".*"),
    ("$service", ".*"),
    ("$instance", ".*"),
    ("$__rate_interval", "10s"),
    ("$__range", "1m"),
];

/// A panel's expression as Prometheus takes it.
pub fn without_variables(expr: &str) -> String {
    VARIABLES.iter().fold(expr.to_owned(), |expr, (name, value)| expr.replace(name, value))
}

/// Reads an expression; the error quotes it.
pub fn parse(expr: &str) -> Result<Expr> {
    parser::parse(expr).map_err(|error| anyhow!("{error} in PromQL: {expr}"))
}

/// Every selector in an expression.
pub fn selectors(expr: &Expr) -> Vec<&VectorSelector> {
    let mut found = Vec::new();
    visit(expr, &mut |expr| match expr {
        Expr::VectorSelector(selector) => found.push(selector),
        Expr::MatrixSelector(selector) => found.push(&selector.vs),
        _ => {}
    });
    found
}

/// The number that `series` is compared with, in the outermost comparison that has it on its left.
/// Of a sum the first part: the rest allows for chance.
pub fn limit(expr: &Expr, series: &str) -> Option<f64> {
    let mut limit = None;
    visit(expr, &mut |expr| {
        let Expr::Binary(BinaryExpr { op, lhs, rhs, .. }) = expr else { return };
        let names_it = || {
            let selectors = selectors(lhs);
            selectors.iter().any(|selector| selector.name.as_deref() == Some(series))
        };
        if limit.is_none() && op.is_comparison_operator() && names_it() {
            limit = constant(rhs).or_else(|| match rhs.as_ref() {
                Expr::Binary(sum) if sum.op.id() == token::T_ADD => constant(&sum.lhs),
                _ => None,
            });
        }
    });
    limit
}

/// The value of an expression of numbers.
pub fn constant(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::NumberLiteral(number) => Some(number.val),
        Expr::Paren(inner) => constant(&inner.expr),
        Expr::Binary(BinaryExpr { op, lhs, rhs, .. }) => {
            let (lhs, rhs) = (constant(lhs)?, constant(rhs)?);
            match op.id() {
                token::T_ADD => Some(lhs + rhs),
                token::T_SUB => Some(lhs - rhs),
                token::T_MUL => Some(lhs * rhs),
                token::T_DIV => Some(lhs / rhs),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Calls `f` for an expression, then for all within it.
pub fn visit<'a>(expr: &'a Expr, f: &mut impl FnMut(&'a Expr)) {
    f(expr);
    match expr {
        Expr::Aggregate(aggregate) => {
            if let Some(param) = &aggregate.param {
                visit(param, f);
            }
            visit(&aggregate.expr, f);
        }
        Expr::Unary(unary) => visit(&unary.expr, f),
        Expr::Binary(binary) => {
            visit(&binary.lhs, f);
            visit(&binary.rhs, f);
        }
        Expr::Paren(paren) => visit(&paren.expr, f),
        Expr::Subquery(subquery) => visit(&subquery.expr, f),
        Expr::Call(call) => call.args.args.iter().for_each(|arg| visit(arg, f)),
        Expr::NumberLiteral(_)
        | Expr::StringLiteral(_)
        | Expr::VectorSelector(_)
        | Expr::MatrixSelector(_)
        | Expr::Extension(_) => {}
    }
}

/// An expression, or a duration, with every duration in it divided by `faster`: a demo has no
/// days to wait.
pub fn scaled(text: &str, faster: u64) -> String {
    if faster <= 1 {
        return text.to_owned();
    }
    let mut scaled = String::new();
    let mut rest = text;
    while let Some((at, word)) = next_duration(rest) {
        let (before, after) = rest.split_at(at);
        scaled += before;
        let _ = write!(scaled, "{}ms", milliseconds(word).unwrap_or(0) / faster);
        rest = &after[word.len()..];
    }
    scaled + rest
}

/// The first duration of `text`: after `[`, after `offset `, or the whole text.
fn next_duration(text: &str) -> Option<(usize, &str)> {
    if milliseconds(text).is_some() {
        return Some((0, text));
    }
    let starts = text.match_indices('[').map(|(at, _)| at + 1);
    let offsets = text.match_indices("offset ").map(|(at, word)| at + word.len());
    let mut starts: Vec<usize> = starts.chain(offsets).collect();
    starts.sort_unstable();
    starts.into_iter().find_map(|at| {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        milliseconds(&rest[..end]).map(|_| (at, &rest[..end]))
    })
}

/// Parses a duration of Prometheus.
pub fn milliseconds(word: &str) -> Option<u64> {
    let digits = word.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = word[..digits].parse().ok()?;
    let unit = match &word[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_what_the_series_is_compared_with() {
        let check =
            |expr, expected| assert_eq!(limit(&parse(expr).unwrap(), "a:b"), expected, "{expr}");
        check("a:b > 0.02 and c > 5", Some(0.02));
        check("c > 5 and on (x) max by (x) (a:b{y=\"z\"}) > 2 * 3", Some(6.0));
        check("sum(rate(a:b[5m])) / (sum(c) > 0) > 0.001", Some(0.001));
        check("a:b > 0.05 + 3 * sqrt(c)", Some(0.05));
        check("c > a:b", None);
        check("a:b / c", None);
    }

    #[test]
    fn durations_are_scaled_wherever_they_stand() {
        let check = |text, expected| assert_eq!(scaled(text, 10), expected);
        check("5m", "30000ms");
        check("rate(a[5m]) > 5 and b offset 1w", "rate(a[30000ms]) > 5 and b offset 60480000ms");
        check("a:b:rate5m{le=\"0.05\"}", "a:b:rate5m{le=\"0.05\"}");
        check("x unless x offset 5m or y", "x unless x offset 30000ms or y");
        assert_eq!(scaled("rate(a[5m])", 1), "rate(a[5m])");
    }
}
