//! The declared weights of backends.

use std::net::{IpAddr, SocketAddr};

use hashbrown::HashMap;
use serde::Serialize;

use crate::relations::Backend;

/// Declared weight of each backend, relative to the others of its group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    exact: HashMap<SocketAddr, u32>,
    any_port: HashMap<IpAddr, u32>,
}

impl Weights {
    /// Declares the weight of a backend, on one port or on all; returns the one it had.
    pub fn insert(&mut self, address: IpAddr, port: Option<u16>, weight: u32) -> Option<u32> {
        match port {
            Some(port) => self.exact.insert(SocketAddr::new(address, port), weight),
            None => self.any_port.insert(address, weight),
        }
    }

    /// The addresses with a weight, each with its port unless it is for all.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, Option<u16>)> {
        let exact = self.exact.keys().map(|address| (address.ip(), Some(address.port())));
        exact.chain(self.any_port.keys().map(|ip| (*ip, None)))
    }

    /// The declarations, as they are written.
    pub fn declared(&self) -> Vec<String> {
        let exact = self.exact.iter().map(|(address, weight)| format!("{address} = {weight}"));
        let any = self.any_port.iter().map(|(address, weight)| format!("{address} = {weight}"));
        let mut all: Vec<String> = exact.chain(any).collect();
        all.sort();
        all
    }

    /// The declared weight of a backend.
    pub fn declared_for(&self, backend: &Backend) -> Option<u32> {
        let Backend::Address(address) = backend else { return None };
        let weight = self.exact.get(address).or_else(|| self.any_port.get(&address.ip()));
        weight.copied()
    }

    /// The weight of a backend: the declared one, or 1.
    pub fn of(&self, backend: &Backend) -> u32 {
        self.declared_for(backend).unwrap_or(1)
    }
}

/// The form used in the configuration.
impl Serialize for Weights {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.declared().serialize(serializer)
    }
}
