//! `balance.toml` is read as it is documented, and every mistake is named with its line and its fix.

use super::*;

fn intent(text: &str) -> Result<Intent, String> {
    let spec = Spec::parse("balance.toml", text.to_owned())?;
    let name = spec.name()?.unwrap_or_else(|| "api".to_owned());
    let listen = spec.listen()?.unwrap_or_else(|| "0.0.0.0:80".parse().expect("an address"));
    let mut intent = Intent::new(name, listen, spec.backends()?);
    spec.apply(&mut intent)?;
    Ok(intent)
}

#[test]
fn the_documented_example_sets_every_key() {
    let read = intent(EXAMPLE).expect("the example of the help");
    assert_eq!((read.name.as_str(), read.listen.to_string().as_str()), ("api", "0.0.0.0:8080"));
    let weights: Vec<_> = read.backends.iter().map(|one| (one.weight, one.backup)).collect();
    assert_eq!(weights, [(3, false), (1, false), (1, true)]);
    assert_eq!(read.health_check.and_then(|check| check.path).as_deref(), Some("/healthz"));
    assert_eq!(read.keep_alive.backend_idle, Duration::from_secs(4));
    assert_eq!(read.limits.pending, Some(100));
    assert_eq!(read.tls.expect("tls").alpn, [Alpn::H2, Alpn::Http11]);
    assert_eq!(read.sticky, Some(Sticky::Cookie("backend".to_owned())));
}

#[test]
fn mistakes_are_named_with_their_line_and_their_fix() {
    let check = |text: &str, expected: &str| {
        let said = intent(text).expect_err(text);
        assert!(said.contains(expected), "{said}\ninstead of\n{expected}");
    };
    check("name = 'a b'", "balance.toml:1: \"a b\" is not a name; write up to 64 letters");
    check(
        "name = 'a'\nlisten = '8080'",
        "balance.toml:2: \"8080\" is not an address to listen at; write one like 0.0.0.0:8080",
    );
    check("\nalgoritm = 'random'", "balance.toml:2: unknown field `algoritm`, expected one of");
    check(
        "algorithm = 'rr'",
        "balance.toml:1: unknown variant `rr`, expected one of `round_robin`",
    );
    check(
        "[[backends]]\naddress = '10.0.0.1'",
        "balance.toml:2: \"10.0.0.1\" is not the address of a backend; write ADDRESS:PORT",
    );
    check(
        "[[backends]]\naddress = '10.0.0.1:1'\nweight = 0",
        "balance.toml:3: 0 is out of range; write a number from 1 to 256",
    );
    check(
        "[[backends]]\naddress = '10.0.0.1:1'\n[[backends]]\naddress = '10.0.0.1:1'",
        "balance.toml:4: backend 10.0.0.1:1 is there twice; remove one",
    );
    check(
        "[[backends]]\naddress = '10.0.0.1:1'\nbackup = true",
        "balance.toml:2: all backends are backups",
    );
    check("[health_check]\npath = '/a b'", "balance.toml:2: \"/a b\" is not a path to request");
    check(
        "[timeouts]\nconnect = '5'",
        "balance.toml:2: \"5\" is not a duration from 1ms to 24h; write a number with a unit",
    );
    check("[timeouts]\nrequest = '0s'", "balance.toml:2: \"0s\" is not a duration");
    check(
        "[tls]\ncertificate = 'a.pem'",
        "balance.toml:2: \"a.pem\" is not a file that every balancer can be given",
    );
    check(
        "[tls]\ncertificate = '/a.pem'\nminimum = '1.0'",
        "balance.toml:3: unknown variant `1.0`, expected `1.2` or `1.3`",
    );
    check(
        "[sticky]\nsource = true\ncookie = 'a'",
        "write either cookie = \"NAME\" or source = true",
    );
    check(
        "mode = 'tcp'\n[sticky]\ncookie = 'a'",
        "balance.toml:2: mode tcp has no cookies; write sticky.source = true",
    );
    check("mode = 'tcp'\nalgorithm = 'hash_uri'", "balance.toml:2: mode tcp has no paths");
    check(
        "mode = 'tcp'\n[health_check]\npath = '/'",
        "balance.toml:3: mode tcp checks by connecting",
    );
    check("name = ", "balance.toml:1: ");
}

#[test]
fn a_written_value_needs_no_other_reason() {
    let spec = Spec::parse("f", "[timeouts]\nrequest = '9s'".to_owned()).expect("a specification");
    let mut intent = Intent::new("api".into(), "[::]:80".parse().expect("an address"), Vec::new());
    intent.reasons.insert(Setting::Request, "observed".to_owned());
    intent.reasons.insert(Setting::Connect, "observed".to_owned());
    spec.apply(&mut intent).expect("it fits");
    assert_eq!(intent.timeouts.request, Duration::from_secs(9));
    assert_eq!(intent.reasons.keys().collect::<Vec<_>>(), [&Setting::Connect]);
}
