//! What makes an owner, and what is kept of it.

use super::*;

fn comm(text: &str) -> [u8; 16] {
    let mut out = [0; 16];
    out[..text.len()].copy_from_slice(text.as_bytes());
    out
}

#[test]
fn interpreters_are_known_and_servers_are_not() {
    for yes in [
        "node",
        "python",
        "python3",
        "python3.11",
        "pypy3",
        "java",
        "ruby3.1",
        "perl",
        "php-fpm8.2",
        "bash",
        "MainThread",
        "node-MainThread",
        "beam.smp",
    ] {
        assert!(is_interpreter(&comm(yes)), "{yes}");
    }
    for no in ["nginx", "postgres", "redis-server", "curl", "nodered", "javac", "sshd", ""] {
        assert!(!is_interpreter(&comm(no)), "{no}");
    }
}

#[test]
fn titles_are_known_by_bytes_that_no_program_file_has() {
    for yes in ["node /srv/shop/", "gunicorn: maste", "[celeryd: celer", "(sd-pam)", "my app"] {
        assert!(is_title(&comm(yes)) && counts_arguments(&comm(yes)), "{yes}");
    }
    for no in ["nginx", "redis-server", "prometheus-node", "", "a.b_c-d@e+f~1,2", "postgres"] {
        assert!(!is_title(&comm(no)) && !counts_arguments(&comm(no)), "{no}");
    }
    for byte in 0..=255u8 {
        for at in 0..15 {
            let mut name = comm("abcdefghijklmno");
            name[at] = byte;
            assert_eq!(is_title(&name), TITLE.contains(&byte), "{byte} at {at}");
        }
    }
}

#[test]
fn servers_of_applications_are_known() {
    for yes in ["gunicorn", "uvicorn", "hypercorn", "celery", "puma", "unicorn_rails"] {
        assert!(is_server(&comm(yes)) && counts_arguments(&comm(yes)), "{yes}");
    }
    for no in ["nginx", "celeryd", "thinner", "unicorns"] {
        assert!(!counts_arguments(&comm(no)), "{no}");
    }
    assert!(counts_directory(&comm("php")) && !counts_directory(&comm("php-fpm8.2")));
    assert!(counts_arguments(&comm("php-fpm8.2")) && !counts_directory(&comm("nginx")));
}

fn hash(command: &str, argv: &str, path: &str) -> u32 {
    let mut arguments = [0; ARGV_BYTES];
    arguments[..argv.len()].copy_from_slice(argv.as_bytes());
    let mut names = [0; PATH_BYTES];
    names[..path.len()].copy_from_slice(path.as_bytes());
    app_hash(&comm(command), &arguments, &names)
}

#[test]
fn different_programs_hash_apart() {
    let node = |argv: &str| hash("node", argv, "shop");
    assert_ne!(node("node\0a.js"), node("node\0b.js"));
    assert_eq!(node("node\0a.js"), node("node\0a.js"));
    assert_ne!(node("node\0a.js"), hash("node", "node\0a.js", "mail"));
    assert_ne!(hash("node", "", ""), 0);
    let title = |title: &str| hash("node /srv/shop/", title, "shop");
    assert_ne!(title("node /srv/shop/orders.js"), title("node /srv/shop/stock.js"));
    assert_ne!(title("node /srv/shop/orders-1.js"), title("node /srv/shop/orders-2.js"));
    assert_ne!(title("gunicorn: worker [shop1]"), title("gunicorn: worker [shop2]"));
    assert_ne!(node("node -p 1"), node("node -p 2"));
}

#[test]
fn a_title_that_counts_hashes_alike() {
    for (command, one, other) in [
        ("ruby", "sidekiq 7.1.2 shop [0 of 5 busy]", "sidekiq 7.1.2 shop [3 of 5 busy]"),
        ("puma", "puma: cluster worker 0: 31 [shop]", "puma: cluster worker 7: 96 [shop]"),
        ("unicorn", "unicorn worker[0] -l 80", "unicorn worker[3] -l 80"),
        ("resque: Forked", "Forked 4711 at 1764387177", "Forked 4712 at 1764387990"),
    ] {
        assert_eq!(hash(command, one, "x"), hash(command, other, "x"), "{one}");
    }
}

/// The same as [`Digits`], byte by byte.
fn without_counts(bytes: &[u8]) -> Vec<u8> {
    let mut is_open = false;
    let fold = |byte: &u8| {
        let is_number = is_open && byte.is_ascii_digit();
        is_open = is_number || b" [(=".contains(byte);
        if is_number { 0 } else { *byte }
    };
    bytes.iter().map(fold).collect()
}

proptest::proptest! {
    #[test]
    fn counts_are_found_as_byte_by_byte(
        text in "([0-9]{1,20}|[ \\[(=a-z-]|\\PC){0,60}",
        noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 64),
    ) {
        for bytes in [text.as_bytes(), &noise] {
            let whole = bytes.len() / 8 * 8;
            let mut digits = Digits::new(1);
            let mut disabled = Digits::new(0);
            let mut found = Vec::new();
            for chunk in bytes[..whole].chunks(8) {
                let word = u64::from_le_bytes(chunk.try_into().unwrap());
                found.extend(digits.without_counts(word).to_le_bytes());
                assert_eq!(disabled.without_counts(word), word);
            }
            assert_eq!(found, without_counts(&bytes[..whole]));
        }
    }
}
