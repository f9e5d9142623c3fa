//! Services whose listening socket was opened by another program: systemd, inetd. The kernel half
//! knows the one that opened it, on every connection; the process that accepts them is found among
//! those that have the socket, or a connection of it.
//!
//! A name that was found stays when the service ends: its connections were accepted by it.

use hashbrown::HashMap;

use super::Names;
use super::addresses::by_address;
use super::scopes::Scope;
use agent_common::address::Address;
use model::service::Service;

/// Places kept at most: sockets beyond belong to the one that opened them.
const MAX_PLACES: usize = 4096;

/// Who accepts connections at a port of an owner that opened the socket for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptor {
    /// This service.
    Service(Service),
    /// One of several services.
    Several,
    /// Not known.
    Unknown {
        /// Whether none will be known in the next seconds.
        is_final: bool,
    },
}

/// By owner and port.
pub(super) type Acceptors = HashMap<(u32, u16), Acceptor>;

// === impl Names ===

impl Names {
    /// Who accepts at the ports of owners that opened sockets for others, as far as is known now.
    pub fn set_acceptors(&mut self, found: impl IntoIterator<Item = ((u32, u16), Acceptor)>) {
        for (place, acceptor) in found {
            let is_news = match (self.acceptors.get(&place), &acceptor) {
                (None, _) => self.acceptors.len() < MAX_PLACES,
                (Some(Acceptor::Several), _)
                | (Some(Acceptor::Service(_)), Acceptor::Unknown { .. }) => false,
                _ => true,
            };
            if is_news {
                self.acceptors.insert(place, acceptor);
            }
        }
    }

    /// Who accepts at a port of an owner, if that opened the socket for others.
    pub fn acceptor(&self, owner: u32, port: u16) -> Option<&Acceptor> {
        self.acceptors.get(&(owner, port))
    }

    /// Owners that opened a socket at this port for a service that is not known.
    pub fn openers(&self, port: u16) -> impl Iterator<Item = u32> {
        let is_unknown = move |((_, at), acceptor): &(&(u32, u16), &Acceptor)| {
            *at == port && !matches!(acceptor, Acceptor::Service(_))
        };
        self.acceptors.iter().filter(is_unknown).map(|((owner, _), _)| *owner)
    }

    /// A server on this host of which only the address is known, as an owner in its network namespace
    /// sees it.
    pub fn at_address(&mut self, netns: u32, owner: u32, address: Address) -> Service {
        let service = by_address(address);
        if !service.is_loopback() {
            return service;
        }
        let Scope { label, .. } = self.loopback_of(netns, owner);
        service.within(&label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::service::Source;

    #[test]
    fn a_service_that_was_found_stays_and_two_are_none() {
        let service = |name: &str| Acceptor::Service(Service::new(name, Source::Unit));
        let unknown = || Acceptor::Unknown { is_final: true };
        let place = (7, 22);
        let mut names = Names::default();
        let mut check = |now: Acceptor, expected: Acceptor| {
            let shown = now.clone();
            names.set_acceptors([(place, now)]);
            assert_eq!(names.acceptor(7, 22), Some(&expected), "{shown:?}");
        };
        check(Acceptor::Unknown { is_final: false }, Acceptor::Unknown { is_final: false });
        check(unknown(), unknown());
        check(service("ssh"), service("ssh"));
        // It has ended, and systemd waits for the next connection.
        check(unknown(), service("ssh"));
        check(service("sshd"), service("sshd"));
        check(Acceptor::Several, Acceptor::Several);
        check(service("sshd"), Acceptor::Several);
        assert_eq!(names.openers(22).collect::<Vec<_>>(), [7]);
        assert_eq!(names.acceptor(7, 23), None);
        names.forget_owner(7);
        assert_eq!(names.acceptor(7, 22), None);
    }
}
