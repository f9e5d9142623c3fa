//! A service by name and namespace.

use std::fmt;

use notation::FullName;

use crate::human;

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Where the name is unique; empty on a plain host.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Name {
    /// The service `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Whether this is it, in whatever namespace if none was written.
    pub fn is(&self, wanted: &FullName) -> bool {
        *wanted.name == *self.name
            && wanted.namespace.as_ref().is_none_or(|namespace| **namespace == *self.namespace)
    }

    /// With a port, as sockets are written.
    pub fn at(&self, port: u16) -> String {
        match port {
            0 => self.to_string(),
            _ => human::readable(&human::endpoint(&self.namespace, &self.name, port)),
        }
    }
}

impl From<&api_types::Service> for Name {
    fn from(service: &api_types::Service) -> Self {
        Self::new(&service.namespace, &service.name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&human::readable(&human::full_name(&self.namespace, &self.name)))
    }
}
