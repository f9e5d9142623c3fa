//! What a cgroup path says about its processes: the container, the pod, the systemd unit.

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
}

impl CgroupInfo {
    /// Parses a path, as in /proc/PID/cgroup.
    pub fn of(path: &str) -> Self {
        Self {
            path: path.into(),
            container: container_id(path).map(Into::into),
            pod: pod_uid(path).map(String::into_boxed_str),
            unit: unit(path),
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

/// The container id in a cgroup path: 64 hex digits, bare (`/docker/<id>`,
/// `/kubepods/burstable/pod<uid>/<id>`), after a runtime's name (`docker-<id>.scope`) or after a
/// colon (`<slice>:cri-containerd:<id>`). Of nested containers the innermost.
pub fn container_id(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(|part| {
        let part = part.rsplit(':').next()?;
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let bare =
            PREFIXES.iter().find_map(|prefix| part.strip_prefix(prefix).filter(|rest| is_id(rest)));
        bare.or(Some(part).filter(|part| is_id(part)))
    })
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

/// The systemd unit of a path: the innermost service that is not a user's manager. Units of a
/// machine (systemd-nspawn, machined) have the machine as their namespace.
fn unit(path: &str) -> Option<Service> {
    let mut machine = None;
    let mut found = None;
    for part in path.split('/') {
        if let Some(name) = machine_name(part) {
            (machine, found) = (Some(name), None);
        } else if let Some(name) = part.strip_suffix(".service") {
            if !name.is_empty() && !name.starts_with("user@") {
                found = Some(unescaped(name));
            }
        } else if part.starts_with("session-") {
            // A login session: its processes are named by their program.
            found = None;
        }
    }
    Some(Service::new(&found?, Source::Unit).within(&machine.unwrap_or_default()))
}

fn machine_name(part: &str) -> Option<String> {
    let nspawn = || part.strip_prefix("systemd-nspawn@")?.strip_suffix(".service");
    let machined = || part.strip_prefix("machine-")?.strip_suffix(".scope");
    nspawn().or_else(machined).filter(|name| !name.is_empty()).map(unescaped)
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
            assert_eq!(container_id(&path), expected, "{pattern}");
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
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/libpod-payload-ID",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/docker-ID.scope",
            "/k8s.io/ID",
            "/default/ID",
            "/ecs/0123456789abcdef0123456789abcdef/ID",
            "/actions_job/ID",
            "/../../docker/ID",
        ] {
            check(pattern, Some(ID));
        }
        check("/docker/ID/docker/INNER", Some(INNER));
        check("/docker/ID/kubepods/besteffort/pod12/INNER", Some(INNER));
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
    fn a_unit_is_the_innermost_service_and_a_machine_its_namespace() {
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
        check(
            "/user.slice/user-1000.slice/user@1000.service/app.slice/sync.service",
            Some(("sync", "")),
        );
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
        check("/payload/system.slice/web.service", Some(("web", "")));
        check("/", None);
        check("/.service", None);
    }

    proptest! {
        #[test]
        fn any_path_is_looked_at_without_panic(path in "[/:.\\\\x\\PC]{0,100}", id in "[0-9a-f]{60,68}") {
            let _ = CgroupInfo::of(&path);
            prop_assert_eq!(container_id(&id).is_some(), id.len() == ID_DIGITS);
        }
    }
}
