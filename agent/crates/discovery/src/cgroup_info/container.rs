//! Ids of containers and uids of pods, as runtimes and the kubelet write them into cgroup paths.

/// Hex digits of a container's id.
pub(super) const ID_DIGITS: usize = 64;

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

/// The container id in a cgroup path and where its part of the path ends: 64 hex digits, bare
/// (`/docker/<id>`, `/kubepods/burstable/pod<uid>/<id>`), after a runtime's name
/// (`docker-<id>.scope`) or after a colon (`<slice>:cri-containerd:<id>`). Of nested containers the
/// outermost. A pod of podman has such an id, too, if systemd does not manage the cgroups.
pub(super) fn container_id(path: &str) -> Option<(&str, usize)> {
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

pub(super) fn id_of(part: &str) -> Option<&str> {
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
pub(super) fn pod_uid(path: &str) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::super::CgroupInfo;
    use super::super::tests::ID;

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
}
