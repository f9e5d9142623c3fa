//! Units of systemd, and the machines (systemd-nspawn, machined, LXC) that have units of their own.

use model::service::{Service, Source};

/// The systemd unit of a path that root has `made` and others have continued with `rest`: the
/// outermost service. Units of a machine have the machine as their namespace, units of a user's
/// manager the user: there they may have any name.
pub(super) fn unit(made: &str, rest: &str, machine: Option<&str>) -> Option<Service> {
    let (mut namespace, mut found) = (String::new(), None);
    let (mut in_machine, mut in_manager) = (false, false);
    let mut parent = "";
    for part in made.split('/') {
        let above = std::mem::replace(&mut parent, part);
        if !in_machine && machine.is_some() && machine_name(above, part).as_deref() == machine {
            (namespace, found, in_machine) = (machine.unwrap_or_default().to_owned(), None, true);
        } else if let Some(user) = user_of_manager(part).filter(|_| found.is_none()) {
            in_manager = true;
            if !in_machine {
                namespace = format!("user-{user}");
            }
        } else if part.starts_with("session-") && found.is_none() {
            // A login session: its processes are named by their program.
            return None;
        } else {
            found = found.or_else(|| service_name(part));
        }
    }
    if in_machine || in_manager {
        found = found.or_else(|| rest.split('/').find_map(service_name));
    }
    Some(Service::new(&found?, Source::Unit).within(&namespace))
}

/// The outermost machine of a path that root has made.
pub(super) fn machine(made: &str) -> Option<String> {
    let mut parent = "";
    made.split('/').find_map(|part| machine_name(std::mem::replace(&mut parent, part), part))
}

/// The service whose cgroup has this name; not a user's manager.
fn service_name(part: &str) -> Option<String> {
    let name = part.strip_suffix(".service").filter(|name| !name.is_empty())?;
    (!name.starts_with("user@")).then(|| unescaped(template_of_connection(name).unwrap_or(name)))
}

/// The template of a unit that systemd started for one accepted connection (`Accept=yes`):
/// `sshd` of `sshd@3-10.0.0.1:22-10.0.0.2:40000` (`instance_from_socket`, src/core/socket.c).
fn template_of_connection(name: &str) -> Option<&str> {
    let (template, instance) = name.split_once('@').filter(|(template, _)| !template.is_empty())?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_place = |text: &str| {
        text.rsplit_once(':')
            .is_some_and(|(ip, port)| ip.parse::<std::net::IpAddr>().is_ok() && is_number(port))
    };
    let mut parts = instance.splitn(3, '-');
    let is_one = is_number(parts.next()?) && is_place(parts.next()?) && is_place(parts.next()?);
    is_one.then_some(template)
}

/// The uid of `user@1000.service`.
fn user_of_manager(part: &str) -> Option<u32> {
    part.strip_prefix("user@")?.strip_suffix(".service")?.parse().ok()
}

/// The machine whose cgroup is called `part`, below `above`: of systemd-nspawn, of machined, or of
/// LXC (`lxc.payload.NAME`, before version 4 `lxc/NAME`).
fn machine_name(above: &str, part: &str) -> Option<String> {
    let nspawn = || part.strip_prefix("systemd-nspawn@")?.strip_suffix(".service");
    let machined = || part.strip_prefix("machine-")?.strip_suffix(".scope");
    let lxc = || {
        let below = Some(part).filter(|_| matches!(above, "lxc" | "lxc.payload"));
        part.strip_prefix("lxc.payload.").or(below)
    };
    let name = nspawn().or_else(machined).or_else(lxc);
    name.filter(|name| !name.is_empty()).map(unescaped)
}

/// Undoes systemd's escapes (`\x2d` is a dash; man 5 systemd.unit).
fn unescaped(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.strip_prefix(b"x").and_then(|hex| hex.split_at_checked(2));
        let code = hex.and_then(|(digits, after)| {
            let digits = std::str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        });
        match code {
            Some((byte, after)) if first == b'\\' => {
                bytes.push(byte);
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::CgroupInfo;
    use super::super::tests::ID;

    #[test]
    fn a_unit_is_the_outermost_service_and_a_machine_its_namespace() {
        let check = |path: &str, expected: Option<(&str, &str)>| {
            let unit = CgroupInfo::of(path).unit;
            let found = unit.as_ref().map(|unit| (&*unit.name, &*unit.namespace));
            assert_eq!(found, expected, "{path}");
        };
        check("/system.slice/nginx.service", Some(("nginx", "")));
        check(
            "/system.slice/system-postgresql.slice/postgresql@15-main.service",
            Some(("postgresql@15-main", "")),
        );
        check("/system.slice/run\\x2dit.service/inner", Some(("run-it", "")));
        for instance in ["3-10.0.0.1:22-10.0.0.2:40000", "12-::1:22-fe80::7:40000"] {
            let path = format!("/system.slice/system-sshd.slice/sshd@{instance}.service");
            check(&path, Some(("sshd", "")));
        }
        for instance in ["3-22-40000", "3-10.0.0.1:22", "x-10.0.0.1:22-10.0.0.2:1", "2026-11-29"] {
            let name = format!("sshd@{instance}");
            check(&format!("/system.slice/{name}.service"), Some((&name, "")));
        }
        check(
            "/user.slice/user-1000.slice/user@1000.service/app.slice/sync.service",
            Some(("sync", "user-1000")),
        );
        check("/system.slice/web.service/payment.service", Some(("web", "")));
        check(&format!("/docker/{ID}/system.slice/payment.service"), None);
        check("/user.slice/user-1000.slice/user@1000.service/init.scope", None);
        check("/user.slice/user-1000.slice/session-3.scope", None);
        check(
            "/machine.slice/systemd-nspawn@box.service/payload/system.slice/web.service",
            Some(("web", "box")),
        );
        check(
            "/machine.slice/machine-my\\x2dbox.scope/payload/system.slice/web.service",
            Some(("web", "my-box")),
        );
        check("/machine.slice/systemd-nspawn@box.service/payload/init.scope", None);
        check("/lxc.payload.box/system.slice/web.service", Some(("web", "box")));
        check("/lxc/101/ns/system.slice/web.service", Some(("web", "101")));
        check("/lxc.payload/box/system.slice/web.service", Some(("web", "box")));
        check("/lxc.monitor.box", None);
        check("/payload/system.slice/web.service", Some(("web", "")));
        check("/", None);
        check("/.service", None);
    }

    #[test]
    fn a_machine_is_known_without_a_unit() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(CgroupInfo::of(path).machine.as_deref(), expected, "{path}");
        };
        check("/lxc.payload.box", Some("box"));
        check("/lxc.payload.box/init.scope", Some("box"));
        check("/machine.slice/machine-my\\x2dbox.scope/payload/init.scope", Some("my-box"));
        check("/lxc.payload.outer/lxc.payload.inner", Some("outer"));
        check("/lxc", None);
        check("/lxc.payload.", None);
        check("/system.slice/lxc.service", None);
        check(&format!("/docker/{ID}/lxc.payload.box"), None);
    }
}
