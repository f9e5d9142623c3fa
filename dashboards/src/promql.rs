//! The words that rules and panels share: label sets, and the two ways to count each thing once.

use std::fmt::Write as _;

/// An edge.
pub const EDGE: &str = "cluster, client, client_namespace, server, server_namespace, port";
/// A pair of services, whatever the port.
pub const PAIR: &str = "cluster, client, client_namespace, server, server_namespace";
/// A service, as the one that is connected to.
pub const SERVICE: &str = "cluster, server, server_namespace";

/// `series` as the client counted it, and as the server did where no agent saw the client.
pub fn client_first(series: &str, by: &str) -> String {
    format!(
        "sum by ({by}) ({series}{{role=\"client\"}})\n\
         or on ({EDGE})\nsum by ({by}) ({series}{{role=\"server\"}})"
    )
}

/// `series` by service, as the server counted it, and as the clients did where no agent saw it.
pub fn server_first(series: &str) -> String {
    format!(
        "sum by ({SERVICE}) ({series}{{role=\"server\"}})\n\
         or\nsum by ({SERVICE}) ({series}{{role=\"client\"}})"
    )
}

/// `expr` with the value of label `from` also in label `to`.
pub fn copied(expr: &str, from: &str, to: &str) -> String {
    format!("label_replace({expr}, \"{to}\", \"$1\", \"{from}\", \"(.*)\")")
}

/// Listeners' series, with the labels by which other series call a server.
pub fn as_server(expr: &str) -> String {
    copied(&copied(expr, "service", "server"), "service_namespace", "server_namespace")
}

/// What happened within `window`. A counter of something rare begins with its first event, which
/// `increase` does not see: of one that was not there in the hour before, everything is new.
pub fn happened(counter: &str, by: &str, window: &str) -> String {
    let before = format!("last_over_time({counter}[1h] offset {window})");
    format!(
        "sum by ({by}) (\n  increase({counter}[{window}]) and {before}\n  or\n  {counter} unless {before}\n)"
    )
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

/// The first duration of `text`: after `[`, after `offset `, or all there is.
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

/// How long a duration of Prometheus' is.
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
    fn durations_are_scaled_wherever_they_stand() {
        let check = |text, expected| assert_eq!(scaled(text, 10), expected);
        check("5m", "30000ms");
        check("rate(a[5m]) > 5 and b offset 1w", "rate(a[30000ms]) > 5 and b offset 60480000ms");
        check("a:b:rate5m{le=\"0.05\"}", "a:b:rate5m{le=\"0.05\"}");
        check("x unless x offset 5m or y", "x unless x offset 30000ms or y");
        assert_eq!(scaled("rate(a[5m])", 1), "rate(a[5m])");
    }
}
