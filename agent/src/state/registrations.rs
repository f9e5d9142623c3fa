//! Jobs of the state actor on services that are registered by hand.

use super::actor::{StateActor, now};
use super::checked::{named, shown, ttl_seconds};
use super::failure::Failure;
use api_types::{Register, Registered, Renew, Renewed, Unregister};
use model::registry::{Endpoint, Lease, Registration};

impl StateActor {
    /// Registers a service by hand.
    pub fn register(&mut self, request: Register) -> Result<Registered, Failure> {
        let now = now();
        let Register { service, addresses, ttl, check } = request;
        let endpoints: Result<Vec<Endpoint>, _> =
            addresses.iter().map(|address| address.parse()).collect();
        let endpoints = endpoints.map_err(Failure::Wrong)?;
        let ttl = ttl.as_deref().map(ttl_seconds).transpose().map_err(Failure::Wrong)?;
        let check = check.as_deref().map(str::parse).transpose().map_err(Failure::Wrong)?;
        let registration = Registration {
            service: named(&service)?,
            check,
            lease: ttl.map(|ttl| Lease::new(ttl, &endpoints, now)),
            endpoints,
        };
        let registered = shown(&registration);
        self.change(|state| state.registry.register(registration, now).map_err(Failure::from))?;
        Ok(registered)
    }

    /// Lets addresses of registered services last for their time to live again.
    pub fn renew(&mut self, request: Renew) -> Result<Renewed, Failure> {
        let now = now();
        let mut wanted = Vec::new();
        for one in request.addresses {
            let endpoint = one.address.parse::<Endpoint>().map_err(Failure::Wrong)?;
            wanted.push((named(&one.service)?, endpoint, one));
        }
        self.change(|state| {
            state.registry.expire(now);
            let mut renewed = Renewed { renewed: Vec::new(), gone: Vec::new() };
            for (service, endpoint, one) in wanted {
                let is_renewed = state.registry.renew(&service, &endpoint, now);
                if is_renewed { &mut renewed.renewed } else { &mut renewed.gone }.push(one);
            }
            Ok(renewed)
        })
    }

    /// Removes a registered service.
    pub fn unregister(&mut self, request: &Unregister) -> Result<Registered, Failure> {
        let service = named(&request.service)?;
        let removed =
            self.change(|state| state.registry.unregister(&service).map_err(Failure::from))?;
        Ok(shown(&removed))
    }
}

#[cfg(test)]
mod tests {
    use api_types::Renewal;
    use linux::probes::Probes;

    use super::*;
    use crate::state::StateFile;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_address_is_renewed_if_it_is_registered_with_a_ttl() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, state, _) = StateFile::open(directory.path());
        let state = StateActor::start(file, state, None, None, Probes::inline()).expect("started");
        let register = |service: &str, address: &str, ttl: Option<&str>| Register {
            service: service.to_owned(),
            addresses: vec![address.to_owned()],
            ttl: ttl.map(str::to_owned),
            check: None,
        };
        for one in
            [register("api", "10.0.0.1:80", Some("30s")), register("forever", "10.0.0.2:80", None)]
        {
            state.ask(move |state| state.register(one)).await.expect("registered");
        }
        let expires = || {
            let state = state.current();
            let api = state.registry.iter().next().expect("the first by name").clone();
            api.until(&api.endpoints[0]).expect("it has a TTL")
        };
        let renewal = |service: &str, address: &str| Renewal {
            service: service.to_owned(),
            address: address.to_owned(),
        };
        let wanted = vec![
            renewal("api", "10.0.0.1:80"),
            renewal("api", "10.0.0.1:81"),
            renewal("forever", "10.0.0.2:80"),
            renewal("nobody", "10.0.0.3:80"),
        ];
        // As if it had been registered long ago.
        state
            .ask(|state| {
                let service = named("api")?;
                let endpoint = "10.0.0.1:80".parse().map_err(Failure::Wrong)?;
                state.change(|state| Ok(state.registry.renew(&service, &endpoint, now() - 20)))
            })
            .await
            .expect("changed");
        let before = expires();
        let (good, others) = wanted.split_at(1);
        let (good, others) = (good.to_vec(), others.to_vec());
        let answer = state.ask(move |state| state.renew(Renew { addresses: wanted })).await;
        assert_eq!(answer, Ok(Renewed { renewed: good, gone: others }));
        assert!(expires() >= before + 20, "{before} {}", expires());
        let wrong = Renew { addresses: vec![renewal("api", "db:80")] };
        let refused = state.ask(move |state| state.renew(wrong)).await.expect_err("refused");
        assert!(matches!(&refused, Failure::Wrong(why) if why.contains("db:80")), "{refused}");
    }
}
