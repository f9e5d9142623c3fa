//! Which service is meant by a name as a person writes it.

pub use notation::FullName;

use super::service::{Service, Source};

impl Service {
    /// The service of this name, registered by hand.
    pub fn registered(name: &FullName) -> Self {
        let namespace = name.namespace.as_deref().unwrap_or_default();
        Self::new(&name.name, Source::Registered).within(namespace)
    }

    /// Whether it is the one that `name` means, or one of them.
    pub fn is_meant_by(&self, name: &FullName) -> bool {
        let FullName { namespace, name } = name;
        self.name == *name
            && namespace.as_ref().is_none_or(|namespace| *namespace == self.namespace)
    }
}

impl From<&Service> for FullName {
    fn from(service: &Service) -> Self {
        let namespace = (!service.namespace.is_empty()).then(|| service.namespace.clone());
        Self { namespace, name: service.name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_namespace_means_the_service_in_any() {
        let check = |written: &str, namespace: &str, name: &str, expected| {
            let written: FullName = written.parse().expect("a name");
            let service =
                Service { namespace: namespace.into(), ..Service::new(name, Source::Container) };
            assert_eq!(service.is_meant_by(&written), expected, "{written} {namespace}/{name}");
        };
        check("postgres", "", "postgres", true);
        check("postgres", "shop", "postgres", true);
        check("shop/postgres", "shop", "postgres", true);
        check("shop/postgres", "test", "postgres", false);
        check("shop/postgres", "", "postgres", false);
        check("postgres", "", "postgre", false);
    }
}
