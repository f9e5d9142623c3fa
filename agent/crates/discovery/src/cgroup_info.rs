//! What a cgroup path says about its processes: the container, the pod, the systemd unit.
//!
//! Only names that root chose count: those of a runtime or of systemd, down to the first directory
//! that was given to a user ([`Delegation`]). Below it a user makes cgroups of any name, and they
//! say nothing but what is of that user anyway: the units of a user's manager, in a namespace of
//! that user; the containers of a user's engine, for an engine of that user. Of nested containers
//! and units the outermost counts, because root inside it may have made the inner ones.

use linux::hierarchy::Delegation;
use model::service::{Entity, Service, Source};

/// Hex digits of a container's id, and of its short form.
const ID_DIGITS: usize = 64;
const SHORT_DIGITS: usize = 12;

/// Prefixes of the id when systemd manages the cgroups (`docker-<id>.scope`).
const PREFIXES: [&str; 8] = [
    "docker-",
    "cri-containerd-",
    "crio-",
    "libpod-",
    "libpod-payload-",
    "containerd-",
    "nerdctl-",
    "buildkit-",
];

/// What the path says about a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupInfo {
    /// The path.
    pub path: Box<str>,
    /// The id of the container.
    pub container: Option<Box<str>>,
    /// The uid of the pod.
    pub pod: Option<Box<str>>,
    /// The systemd unit.
    pub unit: Option<Service>,
    /// The machine: a container with an init of its own (systemd-nspawn, machined, LXC).
    pub machine: Option<Box<str>>,
    /// The name of the last directory that root has made, of a container its short id.
    pub upper: Box<str>,
    /// A container of an engine that this user runs: the user and the id.
    pub rootless: Option<(u32, Box<str>)>,
}

impl CgroupInfo {
    /// Parses a path, as in /proc/PID/cgroup, that root has made to its end.
    pub fn of(path: &str) -> Self {
        Self::within(path, None)
    }

    /// Parses a path that leaves what root made there.
    pub fn within(path: &str, delegation: Option<Delegation>) -> Self {
        let (made, rest) = match delegation {
            Some(delegation) => split(path, delegation.parts),
            None => (path, ""),
        };
        let container = container_id(made);
        // What is in a container is not a runtime's any more.
        let outside = container.and_then(|(_, end)| made.get(..end)).unwrap_or(made);
        let machine = machine(outside);
        let rootless =
            |delegation: Delegation| Some((delegation.uid, container_id(rest)?.0.into()));
        Self {
            path: path.into(),
            container: container.map(|(id, _)| id.into()),
            pod: pod_uid(outside).map(String::into_boxed_str),
            unit: unit(outside, rest, machine.as_deref()),
            machine: machine.map(String::into_boxed_str),
            upper: upper(made).into(),
            rootless: delegation.filter(|_| container.is_none()).and_then(rootless),
        }
    }

    /// The name of a container that no source has named: its short id.
    pub fn container_name(&self) -> Option<Service> {
        let id = self.container.as_deref()?;
        Some(Service::new(id.get(..SHORT_DIGITS)?, Source::Container))
    }

    /// The identity of the pod or container, which a source that lists it gives it too.
    pub fn entity(&self) -> Option<Entity> {
        self.pod.as_deref().or(self.container.as_deref()).map(Entity::of)
    }
}

/// The last directory of a path.
fn upper(path: &str) -> &str {
    let last = path.rsplit('/').next().unwrap_or_default();
    match id_of(last) {
        Some(id) => id.get(..SHORT_DIGITS).unwrap_or(id),
        None => last,
    }
}

/// A path behind so many of its parts.
fn split(path: &str, parts: usize) -> (&str, &str) {
    let mut slashes = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
    match slashes.nth(parts.saturating_sub(1)) {
        Some(at) => path.split_at_checked(at).unwrap_or((path, "")),
        None => (path, ""),
    }
}

/// The container id in a cgroup path and where its part of the path ends: 64 hex digits, bare
/// (`/docker/<id>`, `/kubepods/burstable/pod<uid>/<id>`), after a runtime's name
/// (`docker-<id>.scope`) or after a colon (`<slice>:cri-containerd:<id>`). Of nested containers the
/// outermost. A pod of podman has such an id, too, if systemd does not manage the cgroups.
fn container_id(path: &str) -> Option<(&str, usize)> {
    let (mut end, mut parent) = (0, "");
    for part in path.split('/') {
        end += part.len();
        let above = std::mem::replace(&mut parent, part);
        if let Some(id) = id_of(part).filter(|id| above != "libpod_parent" || *id != part) {
            return Some((id, end));
        }
        end += 1;
    }
    None
}

fn id_of(part: &str) -> Option<&str> {
    let part = part.rsplit(':').next()?;
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let bare =
        PREFIXES.iter().find_map(|prefix| part.strip_prefix(prefix).filter(|rest| is_id(rest)));
    bare.or(Some(part).filter(|part| is_id(part)))
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The pod's uid in a cgroup path: `pod<uid>`, or with systemd `…-pod<uid>.slice`, where the
/// dashes of the uid are underscores (`escapeSystemdCgroupName` of the kubelet). Of nested pods
/// the innermost.
fn pod_uid(path: &str) -> Option<String> {
    path.rsplit('/').find_map(|part| {
        let part = part.split(':').next()?;
        let part = part.strip_suffix(".slice").unwrap_or(part);
        let (before, uid) = part.rsplit_once("pod")?;
        if !(before.is_empty() || before.ends_with('-')) {
            return None;
        }
        let uid = uid.replace('_', "-");
        // A UUID, or the hash that the kubelet gives pods from files.
        let digits = uid.bytes().filter(u8::is_ascii_hexdigit).count();
        let right = digits == 32 && matches!(uid.len(), 32 | 36);
        (right && uid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())).then_some(uid)
    })
}

/// The systemd unit of a path that root has `made` and others have continued with `rest`: the
/// outermost service. Units of a machine have the machine as their namespace, units of a user's
/// manager the user: there they may be called anything.
fn unit(made: &str, rest: &str, machine: Option<&str>) -> Option<Service> {
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
fn machine(made: &str) -> Option<String> {
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
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const INNER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

    #[test]
    fn runtimes_write_ids_into_paths_in_their_own_ways() {
        let check = |pattern: &str, expected: Option<&str>| {
            let path = pattern.replace("ID", ID).replace("INNER", INNER);
            assert_eq!(CgroupInfo::of(&path).container.as_deref(), expected, "{pattern}");
        };
        for pattern in [
            "/docker/ID",
            "/docker/ID/system.slice/nginx.service",
            "/system.slice/docker-ID.scope",
            "/system.slice/docker-ID.scope/init.scope",
            "/kubepods/burstable/pod1b2c0a8c-1111-2222-3333-444455556666/ID",
            "/kubepods/besteffort/pod1b2c0a8c-1111-2222-3333-444455556666/ID",
            "/kubepods/pod1b2c0a8c/ID",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b_2c.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-pod1b_2c.slice/crio-ID.scope",
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1.slice/cri-containerd-ID.scope",
            "/system.slice/containerd.service/kubepods-burstable-pod1b_2c.slice:cri-containerd:ID",
            "/machine.slice/libpod-ID.scope",
            "/machine.slice/libpod-ID.scope/container",
            "/machine.slice/libpod-ID",
            "/libpod_parent/libpod-ID",
            "/libpod_parent/INNER/libpod-ID",
            "/docker/ID/docker/INNER",
            "/docker/ID/kubepods/besteffort/pod12/INNER",
            "/k8s.io/ID",
            "/default/ID",
            "/ecs/0123456789abcdef0123456789abcdef/ID",
            "/actions_job/ID",
            "/../../docker/ID",
        ] {
            check(pattern, Some(ID));
        }
        for pattern in [
            "/",
            "",
            "/system.slice/nginx.service",
            "/system.slice/docker.service",
            "/init.scope",
            "/user.slice/user-1000.slice/session-3.scope",
            "/machine.slice/libpod-conmon-ID.scope",
            "/kubepods.slice/crio-conmon-ID.scope",
            "/kubepods/burstable/pod1b2c0a8c-1111-2222-3333-444455556666",
            "/docker/IDa",
            "/docker/0123456789ab",
            "/docker/0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef",
            "/process_api/0123456789abcdef0123456789abcdef",
        ] {
            check(pattern, None);
        }
    }

    #[test]
    fn pods_are_known_by_their_uid() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(CgroupInfo::of(&path.replace("ID", ID)).pod.as_deref(), expected, "{path}");
        };
        let uid = Some("1b2c0a8c-1111-2222-3333-444455556666");
        check("/kubepods/burstable/pod1b2c0a8c-1111-2222-3333-444455556666/ID", uid);
        check(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b2c0a8c_1111_2222_3333_444455556666.slice/cri-containerd-ID.scope",
            uid,
        );
        check(
            "/system.slice/containerd.service/kubepods-pod1b2c0a8c_1111_2222_3333_444455556666.slice:cri-containerd:ID",
            uid,
        );
        check(
            "/kubepods/besteffort/pod0123456789abcdef0123456789abcdef",
            Some("0123456789abcdef0123456789abcdef"),
        );
        check("/kubepods/pod12/ID", None);
        check("/system.slice/podman.service", None);
        check("/machine.slice/libpod-ID.scope", None);
    }

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

    /// What is known of a path of which `uid` owns the last part of `made` and all behind it.
    fn delegated(made: &str, rest: &str) -> CgroupInfo {
        let parts = made.matches('/').count();
        let path = format!("{made}{rest}").replace("ID", ID);
        CgroupInfo::within(&path, Some(Delegation { parts, uid: 1500 }))
    }

    #[test]
    fn below_a_delegated_cgroup_nothing_names_a_container_a_pod_or_a_unit() {
        for rest in [
            "/docker-ID.scope",
            "/docker/ID",
            "/system.slice/payment.service",
            "/kubepods/burstable/pod1b2c0a8c-1111-2222-3333-444455556666/ID",
            "/machine.slice/systemd-nspawn@box.service/payload/system.slice/web.service",
            "/user@0.service/app.slice/payment.service",
        ] {
            let info = delegated("/delegated", rest);
            let CgroupInfo { container, pod, unit, .. } = &info;
            assert!(container.is_none() && pod.is_none() && unit.is_none(), "{info:?}");
        }
        // A service with a user of its own: systemd named its cgroup, the user what is below.
        let info = delegated("/system.slice/web.service", "/payment.service");
        assert_eq!(info.unit.as_ref().map(|unit| &*unit.name), Some("web"));
        // A container whose root is a user of the host.
        let info = delegated("/system.slice/docker-ID.scope", "/docker/ID/x.service");
        assert_eq!((info.container.as_deref(), &info.unit), (Some(ID), &None));
        assert_eq!(info.rootless, None);
    }

    #[test]
    fn what_a_user_runs_says_whose_it_is() {
        let manager = "/user.slice/user-1500.slice/user@1500.service";
        let unit = delegated(manager, "/app.slice/payment.service/payment.service").unit.unwrap();
        assert_eq!((&*unit.name, &*unit.namespace), ("payment", "user-1500"));
        let podman = delegated(manager, "/user.slice/libpod-ID.scope/container");
        assert_eq!((&podman.container, podman.rootless), (&None, Some((1500, ID.into()))));
    }

    proptest! {
        #[test]
        fn any_path_is_looked_at_without_panic(path in "[/:.\\\\x\\PC]{0,100}", id in "[0-9a-f]{60,68}") {
            let _ = CgroupInfo::of(&path);
            for parts in 0..4 {
                let _ = CgroupInfo::within(&path, Some(Delegation { parts, uid: 1500 }));
            }
            prop_assert_eq!(CgroupInfo::of(&id).container.is_some(), id.len() == ID_DIGITS);
        }
    }
}
