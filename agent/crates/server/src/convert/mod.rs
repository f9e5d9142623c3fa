//! From the model's values to the API's JSON types, which do not depend on each other.

mod edges;
mod endpoints;
mod events;
mod flows;
mod history;
mod ports;
mod relations;
mod reservations;
mod services;
mod status;
mod timeouts;
mod waits;

use api_types::Timestamp;
use model::service::Service;
use model::why::Cause;

pub use self::edges::{EdgeQuery, edges};
pub use self::endpoints::{EndpointQuery, endpoints};
pub use self::events::{EventRange, events};
pub use self::flows::flows;
pub use self::history::history;
pub use self::ports::{PortFilter, ports};
pub use self::relations::{balance, drawn, map, segments};
pub use self::reservations::reservations;
pub use self::services::services;
pub use self::status::{off, status};
pub use self::timeouts::timeouts;

/// A value of the model that the API shows.
pub trait ToApi {
    /// The type in the API.
    type Shape;

    /// The value as the API shows it.
    fn to_api(&self) -> Self::Shape;
}

/// A value of the API that the model has too.
pub trait ToModel {
    /// The model's type.
    type Model;

    /// The value in the model.
    fn to_model(self) -> Self::Model;
}

/// An enumeration that both have; a variant missing on one side does not compile: add it to the
/// other side and to the list below.
macro_rules! same_words {
    ($($model:ty => $shape:ty: $($word:ident)+;)+) => {$(
        impl ToApi for $model {
            type Shape = $shape;

            fn to_api(&self) -> $shape {
                match self { // Not covered? Add the variant to same_words!
                    $(<$model>::$word => <$shape>::$word,)+
                }
            }
        }

        impl ToModel for $shape {
            type Model = $model;

            fn to_model(self) -> $model {
                match self { // Not covered? Add the variant to same_words!
                    $(<$shape>::$word => <$model>::$word,)+
                }
            }
        }
    )+};
}

same_words! {
    model::port::Protocol => api_types::Protocol: Tcp Udp;
    model::snapshot::Role => api_types::Role: Unknown Client Server Listener;
    model::service::Kind => api_types::Kind:
        Deployment StatefulSet DaemonSet ReplicaSet CronJob Job Workload Pod KubernetesService
        ComposeService Container Unit Process Declared DnsName Address Internet Unknown;
    model::service::Source => api_types::Source:
        Rule Kubernetes Docker Podman Cri Container Unit Process Conntrack PublishedPort Listener
        ContainerAddress ServiceAddress LocalClient Registered Network Dns Address Internet Unknown;
    model::port::PortState => api_types::PortState: Listening Bound Connected TimeWait Reserved;
    model::clash::Reason => api_types::BindFailure:
        SameAddress WildcardOverSpecific SpecificUnderWildcard DualStack ReuseAddressMissing
        SelfConnected OutgoingConnection Allocated ReusePortMissing ReusePortOtherUser ListenLost
        Privileged ForeignAddress AlreadyBound Exhausted Denied Gone Other;
    model::reservations::Environment => api_types::Environment: Dev Prod;
    model::reservations::Origin => api_types::Origin: Config State;
    model::breaches::Action => api_types::BreachAction: Audited Denied;
    model::health::HealthState => api_types::HealthState: Failing Degraded Ok Idle;
    model::health::HealthReason => api_types::HealthReason:
        ConnectsFail Unanswered Errors Slow Resets Aborts ListenDrops AcceptQueueFull OwnConnectsFail;
    model::events::Kind => api_types::EventKind:
        Connect Reset Abort Unanswered Response Dns ListenDrop Bind Violation Agent Service Backend
        Edge;
    model::balance::Verdict => api_types::BalanceVerdict: Balanced Unbalanced TooFew;
    model::segments::Verdict => api_types::SegmentVerdict: Allowed Violation NotJudged;
    model::snapshot::SourceState => api_types::NameSourceState: Starting Up Absent Down;
}

impl ToApi for Service {
    type Shape = api_types::Service;

    fn to_api(&self) -> api_types::Service {
        let Self { name, namespace, kind, source } = self;
        api_types::Service {
            name: name.to_string(),
            namespace: namespace.to_string(),
            kind: kind.to_api(),
            source: source.to_api(),
        }
    }
}

impl ToApi for Cause {
    type Shape = api_types::Cause;

    fn to_api(&self) -> api_types::Cause {
        let Self { cause, text, count } = *self;
        api_types::Cause { cause: cause.to_owned(), text: text.to_owned(), count }
    }
}

/// A time that may be unknown.
fn time(seconds: Option<f64>) -> Option<Timestamp> {
    seconds.map(Timestamp::from_seconds)
}

/// A time in whole seconds since the Unix epoch.
pub fn whole_seconds(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(seconds as f64)
}
