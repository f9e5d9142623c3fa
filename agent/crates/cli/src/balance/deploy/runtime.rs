//! HAProxy's runtime API: new weights without a reload.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};

const PATIENCE: Duration = Duration::from_secs(5);

/// A weight that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewWeight {
    backend: String,
    server: String,
    weight: u32,
}

/// The weights that change, if nothing but weights and comments does; `None` if a reload is needed.
pub(super) fn weights_only(old: &str, new: &str) -> Option<Vec<NewWeight>> {
    let lines = |text: &str| -> Vec<String> {
        let code =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        code.map(str::to_owned).collect()
    };
    let (old, new) = (lines(old), lines(new));
    // A hash does not take weights while it runs.
    let takes = |line: &String| line == "balance roundrobin" || line == "balance leastconn";
    if old.len() != new.len() || !new.iter().any(takes) {
        return None;
    }
    let mut backend = String::new();
    let mut changed = Vec::new();
    for (old, new) in old.iter().zip(&new) {
        if let Some(name) = new.strip_prefix("backend ") {
            name.trim().clone_into(&mut backend);
        }
        if old == new {
            continue;
        }
        let ((head, _, tail), (new_head, weight, new_tail)) = (weight(old)?, weight(new)?);
        if (head, tail) != (new_head, new_tail) {
            return None;
        }
        let server = head.split_whitespace().nth(1)?.to_owned();
        changed.push(NewWeight { backend: backend.clone(), server, weight });
    }
    (!changed.is_empty()).then_some(changed)
}

/// Sets the weights, and reads them back.
pub(super) fn set(socket: &Path, weights: &[NewWeight]) -> anyhow::Result<String> {
    for NewWeight { backend, server, weight } in weights {
        let said = ask(socket, &format!("set weight {backend}/{server} {weight}"))?;
        if !said.trim().is_empty() {
            bail!("HAProxy does not take weight {weight} for {backend}/{server}: {}", said.trim());
        }
        let said = ask(socket, &format!("get weight {backend}/{server}"))?;
        let now = said.split_whitespace().next().and_then(|weight| weight.parse().ok());
        if now != Some(*weight) {
            bail!("weight of {backend}/{server} is not {weight} but {}", said.trim());
        }
    }
    let list: Vec<String> = weights
        .iter()
        .map(|one| format!("{}/{} = {}", one.backend, one.server, one.weight))
        .collect();
    Ok(format!("weights set at the runtime API: {}", list.join(", ")))
}

fn ask(socket: &Path, command: &str) -> anyhow::Result<String> {
    let asked = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        writeln!(stream, "{command}")?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.take(1 << 16).read_to_string(&mut answer)?;
        Ok(answer)
    };
    asked().with_context(|| format!("HAProxy's socket {}", socket.display()))
}

/// A line of a server: what is before its weight, the weight, what is behind.
fn weight(line: &str) -> Option<(&str, u32, &str)> {
    if !line.starts_with("server ") {
        return None;
    }
    let (head, rest) = line.split_once(" weight ")?;
    let end = rest.find(' ').unwrap_or(rest.len());
    let (number, tail) = rest.split_at_checked(end)?;
    Some((head, number.parse().ok()?, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "# 1\nbackend api\n    balance roundrobin\n    server b1 10.0.0.1:80 weight 1 check\n    server b2 10.0.0.2:80 weight 1 check\n";

    #[test]
    fn a_change_of_weights_alone_needs_no_reload() {
        let new = OLD.replace("10.0.0.2:80 weight 1", "10.0.0.2:80 weight 3").replace("# 1", "# 2");
        let expected = NewWeight { backend: "api".into(), server: "b2".into(), weight: 3 };
        assert_eq!(weights_only(OLD, &new), Some(vec![expected]));
    }

    #[test]
    fn any_other_change_needs_one() {
        let check = |from: &str, to: &str| {
            assert_eq!(weights_only(OLD, &OLD.replace(from, to)), None, "{from} → {to}");
        };
        check("10.0.0.2:80 weight 1", "10.0.0.3:80 weight 3");
        check("weight 1 check", "weight 3");
        check("    server b2 10.0.0.2:80 weight 1 check\n", "");
        check("roundrobin", "leastconn");
        check("# 1", "# 2");
        let hashed = OLD.replace("roundrobin", "source");
        assert_eq!(weights_only(&hashed, &hashed.replace("weight 1", "weight 2")), None);
    }
}
