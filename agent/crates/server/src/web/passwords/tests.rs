//! Right passwords, wrong ones, and floods of them.

use super::*;

fn passwords(users: &[(&str, &str, u32)], gate: &Arc<Gate>) -> Passwords {
    let user = |(name, password, cost): &(&str, &str, u32)| {
        ((*name).to_owned(), Secret(bcrypt::hash(password, *cost).unwrap()))
    };
    Passwords::new(&users.iter().map(user).collect(), gate).unwrap().unwrap()
}

fn gate() -> Arc<Gate> {
    Arc::new(Gate::new().unwrap())
}

fn peer(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn basic(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

#[tokio::test]
async fn the_right_password_is_admitted_and_remembered() {
    let passwords = passwords(&[("ali", "sesame", 4)], &gate());
    let admit = async |last, given: Option<&str>| passwords.admit(peer(last), given).await;
    for last in 1..3 {
        assert_eq!(admit(last, Some(&basic("ali:sesame"))).await, Verdict::Right);
        assert_eq!(admit(last, Some(&basic("ali:sesam"))).await, Verdict::Wrong);
        assert_eq!(admit(last, Some(&basic("baba:sesame"))).await, Verdict::Wrong);
        for nothing in [Some("Bearer x"), Some("Basic ///"), None] {
            assert_eq!(admit(last, nothing).await, Verdict::Wrong);
        }
    }
}

#[tokio::test]
async fn a_guesser_waits_and_keeps_nobody_out() {
    let gate = gate();
    let users = [("ali", "sesame", 4), ("cogia", "houssain", 4)];
    let before = passwords(&users, &gate);
    assert_eq!(before.admit(peer(1), Some(&basic("ali:sesame"))).await, Verdict::Right);
    // Ali's hash is the same in the changed file.
    let ali = before.users.get("ali").unwrap().text.clone();
    let mut after = [("ali".to_owned(), Secret(ali))].into_iter().collect::<BTreeMap<_, _>>();
    after.insert("cogia".to_owned(), Secret(bcrypt::hash("houssain", 4).unwrap()));
    let passwords = Passwords::new(&after, &gate).unwrap().unwrap();
    let mut wrong = 0;
    let wait = loop {
        match passwords.admit(peer(1), Some(&basic(&format!("ali:{wrong}")))).await {
            Verdict::Later(wait) => break wait,
            verdict => assert_eq!(verdict, Verdict::Wrong),
        }
        wrong += 1;
    };
    assert_eq!(wrong, 4);
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    // A verified one is let in from any address, a new one from another.
    for last in [1, 2] {
        assert_eq!(passwords.admit(peer(last), Some(&basic("ali:sesame"))).await, Verdict::Right);
    }
    assert_eq!(passwords.admit(peer(3), Some(&basic("cogia:houssain"))).await, Verdict::Right);
    assert_eq!(passwords.admit(peer(1), Some(&basic("cogia:houssain"))).await, Verdict::Right);
    // Every user name gets the same answer.
    for name in ["ali", "nobody"] {
        let verdict = passwords.admit(peer(1), Some(&basic(&format!("{name}:x")))).await;
        assert!(matches!(verdict, Verdict::Later(_)), "{name}: {verdict:?}");
    }
}

#[tokio::test]
async fn all_guesses_together_take_a_fifth_of_one_cpu() {
    let began = Instant::now();
    let ended = began + Duration::from_millis(10);
    assert_eq!(rested(began, ended) - began, Duration::from_millis(50));
    // The next guess waits for that.
    let passwords = passwords(&[("ali", "sesame", 4)], &gate());
    for last in 0..6 {
        let next = *passwords.gate.turn.lock().await;
        assert_eq!(next.is_some(), last > 0);
        let verdict = passwords.admit(peer(last), Some(&basic("ali:x"))).await;
        assert_eq!(verdict, Verdict::Wrong);
        assert!(next.is_none_or(|next| Instant::now() >= next));
    }
}

#[tokio::test]
async fn a_flood_from_many_addresses_is_answered_at_once_and_ends_with_the_flood() {
    let passwords = Arc::new(passwords(&[("ali", "sesame", 4)], &gate()));
    // The first comparison takes until all have been asked.
    let turn = passwords.gate.turn.lock().await;
    let mut guesses = tokio::task::JoinSet::new();
    for last in 0..100 {
        let passwords = Arc::clone(&passwords);
        guesses.spawn(async move { passwords.admit(peer(last), Some(&basic("ali:x"))).await });
    }
    for _ in QUEUE..100 {
        let verdict = guesses.join_next().await.expect("a guess").unwrap();
        assert!(matches!(verdict, Verdict::Later(_)), "the queue is bounded: {verdict:?}");
    }
    drop(turn);
    let mut wrong = 0;
    while let Some(verdict) = guesses.join_next().await {
        assert_eq!(verdict.unwrap(), Verdict::Wrong);
        wrong += 1;
    }
    assert_eq!(wrong, QUEUE);
    assert_eq!(passwords.admit(peer(200), Some(&basic("ali:sesame"))).await, Verdict::Right);
}

#[test]
fn a_comparison_takes_as_long_for_every_user() {
    let hash = |password, cost| Hash { text: bcrypt::hash(password, cost).unwrap(), cost };
    let (cheap, dear) = (hash("sesame", 4), hash("sesame", 9));
    assert!(compare("sesame", Some(&cheap), 9));
    assert!(!compare("sesam", Some(&dear), 9));
    assert!(!compare("sesame", None, 9));
    let work = |hash: Option<&Hash>| -> u32 {
        let own = hash.map_or(0, |hash| 1 << hash.cost);
        own + decoys(hash, 9).map(|cost| 1 << cost).sum::<u32>()
    };
    assert_eq!([None, Some(&cheap), Some(&dear)].map(work), [1 << 9; 3]);
}

#[test]
fn each_address_with_wrong_passwords_has_a_line_of_its_own() {
    let gate = gate();
    let six = |text: &str| text.parse::<IpAddr>().unwrap();
    let peers = [
        (peer(1), true),
        (peer(1), false),
        (peer(2), true),
        (six("2001:db8::1"), true),
        (six("2001:db8::2"), false),
        (six("2001:db8:0:1::1"), true),
    ];
    for (peer, is_written) in peers {
        assert_eq!(gate.report(peer, 1), is_written, "{peer}");
    }
}
