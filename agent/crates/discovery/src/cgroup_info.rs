//! What a cgroup path says about its processes: the container, the pod, the systemd unit.
//!
//! Only names that root chose count: those of a runtime or of systemd, down to the first directory
//! that was given to a user ([`Delegation`]). Below it a user can make cgroups of any name, so they
//! count only for what belongs to that user anyway: the units of a user's manager, in a namespace
//! of that user; the containers of a user's engine, for an engine of that user. Of nested
//! containers and units the outermost counts, because root inside it may have made the inner ones.

mod container;
mod unit;

use self::container::{container_id, id_of, pod_uid};
use self::unit::{machine, unit};
use linux::hierarchy::Delegation;
use model::service::{Entity, Service, Source};

/// Hex digits of the short form of a container's id.
const SHORT_DIGITS: usize = 12;

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
        // Paths inside a container are not the runtime's.
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

    /// The identity of the pod or container, the same as in a source that lists it.
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

/// Splits a path after this many parts.
fn split(path: &str, parts: usize) -> (&str, &str) {
    let mut slashes = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
    match slashes.nth(parts.saturating_sub(1)) {
        Some(at) => path.split_at_checked(at).unwrap_or((path, "")),
        None => (path, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::container::ID_DIGITS;
    use super::*;
    use proptest::prelude::*;

    pub(super) const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

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
