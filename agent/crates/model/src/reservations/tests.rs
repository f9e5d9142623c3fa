//! Claims about reservations.

use proptest::prelude::*;

use super::*;

fn for_service(port: u16, service: &str) -> Reservation {
    Reservation {
        origin: Origin::State,
        ..Reservation::from_config(&format!("{port} {service}")).expect("valid")
    }
}

#[test]
fn a_port_is_kept_for_one_service_until_it_is_released() {
    let mut all = Reservations::default();
    all.reserve(for_service(5432, "postgres"), 0).expect("free");
    let refused = all.reserve(for_service(5432, "pgbouncer"), 0).expect_err("taken").to_string();
    assert!(
        refused.starts_with("5432/tcp is reserved for postgres; release it first"),
        "{refused}"
    );
    // The same service may ask again, and say more.
    let again = Reservation { enforce: true, ..for_service(5432, "postgres") };
    all.reserve(again.clone(), 0).expect("its own");
    assert_eq!(all.iter().collect::<Vec<_>>(), [&again]);
    // UDP, and the same port elsewhere, are other ports.
    let udp = Reservation { port: Port::udp(5432), ..for_service(5432, "statsd") };
    all.reserve(udp, 0).expect("another protocol");
    all.reserve(Reservation { netns: Some(7), ..for_service(5432, "other") }, 0)
        .expect("elsewhere");
    assert_eq!(all.release(None, Port::tcp(5432), None, 0), Ok(again));
    assert_eq!(
        all.release(None, Port::tcp(5432), None, 0),
        Err(Refused::NotReserved(Port::tcp(5432)))
    );
    assert_eq!(all.len(), 2);
}

#[test]
fn an_expired_reservation_is_not_in_force() {
    let mut all = Reservations::default();
    let lease = Reservation { until: Some(100), ..for_service(8080, "web") };
    assert_eq!(all.reserve(lease.clone(), 100), Err(Refused::Over { until: 100, now: 100 }));
    all.reserve(lease, 99).expect("free");
    let port = Port::tcp(8080);
    assert!(all.in_force(None, port, 99, None).is_some());
    assert!(all.in_force(None, port, 100, None).is_none());
    all.reserve(for_service(8080, "api"), 100).expect("free again");
    let holder = all.in_force(None, port, u64::MAX, None).expect("in force");
    assert_eq!(holder.service.to_string(), "api");
}

#[test]
fn dev_and_prod_may_want_the_same_port() {
    let mut all = Reservations::default();
    let with = |service, environment| Reservation { environment, ..for_service(3001, service) };
    let (dev, prod) = (Some(Environment::Dev), Some(Environment::Prod));
    all.reserve(with("web", dev), 0).expect("free");
    all.reserve(with("api", prod), 0).expect("another environment");
    assert!(matches!(all.reserve(with("x", None), 0), Err(Refused::Taken(_))));
    let port = Port::tcp(3001);
    let holder = |here| all.in_force(None, port, 0, here).map(|one| one.service.to_string());
    assert_eq!(holder(dev).as_deref(), Some("web"));
    assert_eq!(holder(prod).as_deref(), Some("api"));
    assert_eq!(all.clone().release(None, port, None, 0), Err(Refused::Ambiguous(port)));
    assert_eq!(all.release(None, port, dev, 0), Ok(with("web", dev)));
}

#[test]
fn reservations_of_the_configuration_cannot_be_changed() {
    let mut all = Reservations::default();
    let fixed = Reservation::from_config("5432 postgres").expect("valid");
    all.configure(std::slice::from_ref(&fixed)).expect("no contradiction");
    for service in ["postgres", "other"] {
        let refused = all.reserve(for_service(5432, service), 0);
        assert_eq!(refused, Err(Refused::InConfiguration(Box::new(fixed.clone()))));
    }
    let refused = all.release(None, Port::tcp(5432), None, 0).expect_err("fixed").to_string();
    assert_eq!(
        refused,
        "5432/tcp is reserved for postgres in the configuration; change it there (ports.reservations) and restart the agent"
    );
    let other = Reservation::from_config("5432 other env=dev").expect("valid");
    assert_eq!(all.configure(std::slice::from_ref(&other)), Err(Box::new((fixed, other))));
}

#[test]
fn the_configuration_is_read_or_refused_with_the_fix() {
    let check = |text: &str, expected: Result<&str, &str>| {
        let read = Reservation::from_config(text).map(|one| one.to_string());
        match (read, expected) {
            (Ok(read), Ok(expected)) => assert_eq!(read, expected, "{text}"),
            (Err(said), Err(expected)) => assert!(said.contains(expected), "{text}: {said}"),
            (read, expected) => panic!("{text}: {read:?} {expected:?}"),
        }
    };
    check("5432 postgres", Ok("5432/tcp postgres"));
    check("8125/udp  statsd enforce", Ok("8125/udp statsd enforce"));
    check(
        "80 shop/web until=2026-12-01 env=prod",
        Ok("80/tcp shop/web env=prod until=2026-12-01T00:00:00Z"),
    );
    check("5432", Err("like \"5432 postgres\""));
    check("postgres 5432", Err("write a number from 1 to 65535"));
    check("5432 postgres env=test", Err("use dev or prod"));
    check("5432 postgres until=2h", Err("a time in UTC"));
    check("5432 postgres forced", Err("\"forced\" is not understood"));
}

#[test]
fn there_is_an_end_to_how_many() {
    let mut all = Reservations::default();
    for port in 1..=MOST {
        all.reserve(for_service(port as u16, "x"), 0).expect("room");
    }
    assert_eq!(all.reserve(for_service(60_000, "x"), 0), Err(Refused::Full));
    all.reserve(for_service(1, "x"), 0).expect("a change is no addition");
}

fn any_reservation() -> impl Strategy<Value = Reservation> {
    let environment =
        proptest::option::of(prop_oneof![Just(Environment::Dev), Just(Environment::Prod)]);
    let service = prop_oneof![Just("a"), Just("b"), Just("n/a")];
    (1u16..4, service, environment, proptest::option::of(0u64..20), any::<bool>()).prop_map(
        |(port, service, environment, until, enforce)| Reservation {
            environment,
            until,
            enforce,
            ..for_service(port, service)
        },
    )
}

proptest! {
    #[test]
    fn at_no_time_do_two_services_have_the_same_port(
        steps in proptest::collection::vec((any_reservation(), any::<bool>()), 1..30),
    ) {
        let mut all = Reservations::default();
        for (now, (one, release)) in steps.into_iter().enumerate() {
            let now = now as u64;
            if release {
                let _ = all.release(None, one.port, one.environment, now);
            } else {
                let _ = all.reserve(one.clone(), now);
            }
            let mut sorted: Vec<_> = all.iter().cloned().collect();
            sorted.sort();
            prop_assert!(sorted.iter().eq(all.iter()), "sorted");
            for here in [None, Some(Environment::Dev), Some(Environment::Prod)] {
                for at in now..20 {
                    let in_force: Vec<_> =
                        all.of(None, one.port).filter(|one| one.in_force(at, here)).collect();
                    // Where a host is for both, dev and prod may both be in force.
                    let limit = if here.is_none() { 2 } else { 1 };
                    prop_assert!(in_force.len() <= limit, "{in_force:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_shown_is_read_as_the_same(one in any_reservation()) {
        let one = Reservation { origin: Origin::Config, ..one };
        prop_assert_eq!(Reservation::from_config(&one.to_string()), Ok(one));
    }
}
