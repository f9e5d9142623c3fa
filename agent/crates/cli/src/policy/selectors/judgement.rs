//! What the policies say of an edge.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{
    Expression, IpBlock, Network, Operator, Peer, Policies, Policy, Port, PortName, Selector, Spec,
};
use crate::policy::answer::Answer;
use crate::policy::kubernetes::NAMESPACE_LABEL;
use crate::policy::observed::{Edge, End};
use crate::policy::verdict::{Judge, Verdict};

impl Judge for Policies {
    fn judge(&self, edge: &Edge) -> Verdict {
        let directions = [(&edge.server, &edge.client, true), (&edge.client, &edge.server, false)];
        let mut doubt = None;
        for (subject, peer, is_ingress) in directions {
            match self.direction(edge, subject, peer, is_ingress) {
                Verdict::Cut(why) => return Verdict::Cut(why),
                Verdict::Undecided(why) => doubt = doubt.or(Some(why)),
                Verdict::Allowed => {}
            }
        }
        doubt.map_or(Verdict::Allowed, Verdict::Undecided)
    }
}

// === impl Policies ===

impl Policies {
    /// What the policies of one end say of the other.
    fn direction(&self, edge: &Edge, subject: &End, peer: &End, is_ingress: bool) -> Verdict {
        if !subject.is_pod() {
            return Verdict::Allowed;
        }
        let mut isolated = Answer::No;
        let mut admitted = Answer::No;
        let mut by = Vec::new();
        for policy in &self.policies {
            if !policy.is_about(is_ingress) {
                continue;
            }
            let selects = policy.selects(subject, self.labels.get(&subject.name));
            if selects == Answer::No {
                continue;
            }
            isolated = isolated.or(selects);
            by.push(policy.metadata.name.as_str());
            let admits = policy.admits(edge, peer, self.labels.get(&peer.name), is_ingress);
            admitted = admitted.or(admits.and(selects));
        }
        let side = if is_ingress { "ingress of" } else { "egress of" };
        match (isolated, admitted) {
            (Answer::No, _) | (_, Answer::Yes) => Verdict::Allowed,
            (Answer::Yes, Answer::No) => Verdict::Cut(format!(
                "{side} {}: no rule of {} allows it",
                subject.name,
                by.join(", ")
            )),
            (Answer::Yes | Answer::Unknown, _) => Verdict::Undecided(format!(
                "{side} {}: {} select by what the agent does not know (names.labels, ports by name, ports behind a Service)",
                subject.name,
                by.join(", ")
            )),
        }
    }
}

// === impl Policy ===

impl Policy {
    /// Whether it is about this direction: `policyTypes`, or what Kubernetes infers without.
    fn is_about(&self, is_ingress: bool) -> bool {
        let Spec { policy_types, egress, .. } = &self.spec;
        match (policy_types.as_slice(), is_ingress) {
            ([], true) => true,
            ([], false) => egress.is_some(),
            (types, true) => types.iter().any(|one| one == "Ingress"),
            (types, false) => types.iter().any(|one| one == "Egress"),
        }
    }

    /// Whether it selects the pods of a workload. A policy without a namespace goes into the one that
    /// is current when it is applied.
    fn selects(&self, end: &End, labels: Option<&BTreeMap<String, String>>) -> Answer {
        let namespace = match &self.metadata.namespace {
            Some(namespace) if *namespace == end.name.namespace => Answer::Yes,
            Some(_) => Answer::No,
            None => Answer::Unknown,
        };
        namespace.and(self.spec.pod_selector.fits(labels))
    }

    fn admits(
        &self,
        edge: &Edge,
        peer: &End,
        labels: Option<&BTreeMap<String, String>>,
        is_ingress: bool,
    ) -> Answer {
        let own = self.metadata.namespace.as_deref();
        let one = |peers: Option<&[Peer]>, ports: Option<&[Port]>| {
            let peers = peers.filter(|peers| !peers.is_empty()).map_or(Answer::Yes, |peers| {
                let admits = |one: &Peer| one.fits(peer, labels, own);
                peers.iter().map(admits).fold(Answer::No, Answer::or)
            });
            let ports = ports.filter(|ports| !ports.is_empty()).map_or(Answer::Yes, |ports| {
                ports.iter().map(|port| port.fits(edge)).fold(Answer::No, Answer::or)
            });
            peers.and(ports)
        };
        let Spec { ingress, egress, .. } = &self.spec;
        if is_ingress {
            let rules = ingress.iter().flatten();
            rules
                .map(|rule| one(rule.from.as_deref(), rule.ports.as_deref()))
                .fold(Answer::No, Answer::or)
        } else {
            let rules = egress.iter().flatten();
            rules
                .map(|rule| one(rule.to.as_deref(), rule.ports.as_deref()))
                .fold(Answer::No, Answer::or)
        }
    }
}

// === impl Peer ===

impl Peer {
    fn fits(
        &self,
        end: &End,
        labels: Option<&BTreeMap<String, String>>,
        own_namespace: Option<&str>,
    ) -> Answer {
        if let Some(block) = &self.ip_block {
            return block.fits(end);
        }
        if !end.is_pod() {
            return Answer::No;
        }
        let namespace = match &self.namespace_selector {
            Some(selector) => {
                let known = [(NAMESPACE_LABEL.to_owned(), end.name.namespace.clone())];
                selector.fits(Some(&BTreeMap::from(known)))
            }
            None => match own_namespace {
                Some(own) if own == end.name.namespace => Answer::Yes,
                Some(_) => Answer::No,
                None => Answer::Unknown,
            },
        };
        let pods = self.pod_selector.as_ref().map_or(Answer::Yes, |selector| selector.fits(labels));
        namespace.and(pods)
    }
}

// === impl IpBlock ===

impl IpBlock {
    fn fits(&self, end: &End) -> Answer {
        let Some(address) = end.addresses.first() else { return Answer::Unknown };
        let holds = |network: &Network| network.contains(*address);
        if holds(&self.cidr) && !self.except.iter().any(holds) { Answer::Yes } else { Answer::No }
    }
}

// === impl Network ===

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        self.0.network.is_some_and(|network| network.contains(&address))
    }
}

// === impl Selector ===

impl Selector {
    /// Whether pods with these labels fit; labels that are not there may be unknown.
    fn fits(&self, labels: Option<&BTreeMap<String, String>>) -> Answer {
        let value = |key: &str| labels.and_then(|labels| labels.get(key));
        let is = |known: bool| if known { Answer::Yes } else { Answer::No };
        let wanted = self
            .match_labels
            .iter()
            .map(|(key, wanted)| value(key).map_or(Answer::Unknown, |value| is(value == wanted)));
        let expressions =
            self.match_expressions.iter().map(|Expression { key, operator, values }| {
                match (operator, value(key)) {
                    (_, None) => Answer::Unknown,
                    (Operator::In, Some(value)) => is(values.contains(value)),
                    (Operator::NotIn, Some(value)) => is(!values.contains(value)),
                    (Operator::Exists, Some(_)) => Answer::Yes,
                    (Operator::DoesNotExist, Some(_)) => Answer::No,
                }
            });
        wanted.chain(expressions).fold(Answer::Yes, Answer::and)
    }
}

// === impl Port ===

impl Port {
    fn fits(&self, edge: &Edge) -> Answer {
        let is_tcp = self.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        match (&self.port, self.end_port) {
            _ if !is_tcp => Answer::No,
            (None, _) => Answer::Yes,
            // The pods' port is another one than the Service's that was asked for.
            _ if edge.asked.is_some() => Answer::Unknown,
            (Some(PortName::Name(_)), _) => Answer::Unknown,
            (Some(PortName::Number(first)), last) => {
                let last = last.unwrap_or(*first);
                if (*first..=last).contains(&edge.port) { Answer::Yes } else { Answer::No }
            }
        }
    }
}
