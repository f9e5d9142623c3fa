//! Titles and arguments that programs have in production, and that no value in them becomes a name.

use proptest::prelude::*;

use super::process::{command_name, process_name, process_name_in};
use super::test_path;

/// Placed where values stand.
const SECRET: &str = "hunter2";

/// `comm` as it was given, at most what the kernel keeps; `argv` separated by `|`.
fn name(comm: &str, argv: &str) -> String {
    let comm = String::from_utf8_lossy(comm.as_bytes().get(..15).unwrap_or(comm.as_bytes()));
    process_name(&comm, argv.replace('|', "\0").as_bytes())
}

/// A program that has written its title over its arguments, and its first bytes over its command
/// name, as setproctitle, PM2 and libuv do.
fn title(title: &str) -> String {
    name(title, title)
}

#[test]
fn titles_are_called_by_the_program_or_its_script() {
    for (text, expected) in [
        ("/usr/bin/python3 /tmp/gu --env DB_PASSWORD=hunter2", "gu"),
        ("/usr/bin/python3 /tmp/gu --env DB_PASSWORD=hunter2 -b 127.0.0.1:8000 shop:app", "gu"),
        ("python3 -u /srv/shop/orders.py hunter2", "orders.py"),
        ("python3 -m shop.web --password hunter2", "shop.web"),
        ("python3 /srv/shop/__main__.py hunter2", "shop"),
        ("/usr/bin/python3 -c from multiprocessing.spawn import spawn_main; hunter2", "python3"),
        ("python3 -W hunter2 hunter2", "python3"),
        ("node /srv/shop/orders.js", "orders.js"),
        ("node /srv/shop/stock.js --token hunter2", "stock.js"),
        ("node --title a hunter2 b", "node"),
        ("node -e hunter2", "node"),
        ("PM2 v5.3.0: God Daemon (/root/.pm2)", "PM2"),
        ("gunicorn: master [shop:app]", "shop"),
        ("gunicorn: worker [shop:app]", "shop"),
        ("[celeryd: celery@host:MainProcess] -active- (worker -A shop --loglevel=INFO)", "shop"),
        ("puma 6.4.0 (tcp://0.0.0.0:3000) [shop]", "shop"),
        ("puma: cluster worker 0: 31 [shop]", "shop"),
        ("unicorn_rails master -c config/unicorn.rb -E hunter2", "unicorn_rails"),
        ("next-server (v14.1.0)", "next-server"),
        ("postgres: 15/main: user db 10.0.0.1(1234) idle", "postgres"),
        ("sshd: alice@pts/0", "sshd"),
        ("php-fpm: pool www", "php-fpm"),
        ("nginx: worker process", "nginx"),
        ("sidekiq 7.1.2 shop [0 of 5 busy]", "sidekiq"),
        ("solid-queue-worker(1.0): waiting for jobs in hunter2", "solid-queue-worker"),
        ("resque-2.6.0: Waiting for hunter2", "resque-2.6.0"),
        ("npm run start --token hunter2", "npm start"),
        ("npm --otp hunter2 publish", "npm"),
        ("ruby /srv/shop.rb hunter2", "shop.rb"),
        ("java -Dpassword=hunter2 -jar /opt/shop.jar", "shop.jar"),
        ("java -Dpassword=hunter2 com.shop.Main", "java"),
        ("sh -c PGPASSWORD=hunter2 psql", "sh"),
        ("sh -e /srv/run.sh hunter2", "run.sh"),
        ("/opt/shop/bin/shop-api --password hunter2", "shop-api"),
        ("/opt/shop/bin/shop-api --password hunter2 --config /etc/hunter2", "shop-api"),
        ("PASSWORD=hunter2 shop", "unknown"),
        ("DB_PASSWORD=hunter2", "unknown"),
        ("user:hunter2@db shop", "unknown"),
        ("--password hunter2", "unknown"),
        ("-phunter2 shop", "unknown"),
        ("\"hunter2\" shop", "unknown"),
        ("https://user:hunter2@db/ shop", "unknown"),
        ("\u{202e}hunter2 shop", "unknown"),
    ] {
        let found = title(text);
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn one_application_has_one_name_in_all_its_processes() {
    // Command name, arguments or title, working directory: as the programs were seen to be.
    for (expected, processes) in [
        (
            "shop.wsgi",
            &[
                ("gunicorn", "/v/bin/python3|/v/bin/gunicorn|-w|2|shop.wsgi:app", "/srv/shop"),
                ("gunicorn: maste", "gunicorn: master [shop.wsgi:app]", "/srv/shop"),
                ("gunicorn: worke", "gunicorn: worker [shop.wsgi:app]", "/srv/shop"),
            ][..],
        ),
        (
            "mail",
            &[
                ("gunicorn", "/v/bin/python3|/v/bin/gunicorn|app:app", "/srv/mail"),
                ("python3", "/v/bin/python3|-m|gunicorn|app:app", "/srv/mail"),
                ("gunicorn: maste", "gunicorn: master [app:app]", "/srv/mail"),
                ("uvicorn", "/v/bin/python3|/v/bin/uvicorn|main:app|--workers|2", "/srv/mail"),
                ("uvicorn", "/v/bin/python3|/v/bin/uvicorn|app.main:app", "/srv/mail/src"),
            ],
        ),
        (
            "shop.tasks",
            &[
                ("celery", "/v/bin/python3|/v/bin/celery|-A|shop.tasks|worker", "/srv/shop"),
                (
                    "[celeryd: celer",
                    "[celeryd: celery@vm:MainProcess] -active- (-A shop.tasks worker)",
                    "/srv/shop",
                ),
            ],
        ),
        (
            "rubyapp",
            &[
                ("puma", "/usr/bin/ruby|/usr/bin/puma|-w|2", "/srv/rubyapp"),
                ("puma", "puma 5.6.5 (tcp://127.0.0.1:19111) [rubyapp]", "/srv/rubyapp"),
                ("puma", "puma: cluster worker 0: 10398 [rubyapp]", "/srv/rubyapp"),
                ("ruby", "puma: cluster worker 0: 10398 [rubyapp]", "/srv/rubyapp"),
                ("unicorn", "unicorn master -l 127.0.0.1:19112", "/srv/rubyapp"),
                ("unicorn", "unicorn worker[0] -l 127.0.0.1:19112", "/srv/rubyapp"),
            ],
        ),
        (
            "web",
            &[
                ("node", "node|/srv/web/node_modules/.bin/next|dev", "/srv/web"),
                ("next-server (v1", "next-server (v14.2.35)", "/srv/web"),
                ("node", "node|server.js", "/srv/web/.next/standalone"),
                ("node /srv/web/i", "node /srv/web/index.js", "/"),
            ],
        ),
        (
            "orders.js",
            &[
                ("node", "node|/srv/shop/orders.js", "/srv/shop"),
                ("node /srv/shop/", "node /srv/shop/orders.js", "/srv/shop"),
            ],
        ),
        (
            "php-fpm",
            &[
                ("php-fpm8.2", "php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)", "/"),
                ("php-fpm8.2", "php-fpm: pool www", "/"),
            ],
        ),
    ] {
        for (comm, argv, cwd) in processes {
            let found = process_name_in(comm, argv.replace('|', "\0").as_bytes(), &test_path(cwd));
            assert_eq!(&found, expected, "{comm}: {argv} in {cwd}");
        }
    }
}

#[test]
fn titles_over_the_arguments_of_an_interpreter_are_called_by_what_is_known() {
    for (comm, argv, expected) in [
        ("ruby", "puma 6.4.0 (tcp://0.0.0.0:3000) [shop]", "shop"),
        ("ruby", "unicorn master -c config/unicorn.rb -E hunter2", "unicorn"),
        ("ruby", "delayed_job.0", "delayed_job.0"),
        ("ruby", "resque-2.6.0: Waiting for hunter2", "resque-2.6.0"),
        ("python3", "/usr/bin/python3 /tmp/gu --env DB_PASSWORD=hunter2", "gu"),
        ("python3", "hunter2 value", "python3"),
        ("python3", "hunter2", "python3"),
        ("python3", "hunter2|-c|code", "python3"),
        ("python3", "hunter2|/srv/shop.py", "shop.py"),
        // What a shorter title leaves of the arguments.
        ("python3", "my title|unter2", "python3"),
        ("python3", "title|unter2", "python3"),
        ("node", "hunter2=x y", "node"),
        ("bash", "-bash", "bash"),
        ("php-fpm8.2", "php-fpm: pool hunter2", "php-fpm"),
    ] {
        assert_eq!(name(comm, argv), expected, "{comm}: {argv}");
    }
}

#[test]
fn values_of_arguments_are_no_names() {
    for (argv, expected) in [
        ("mysql|-phunter2", "mysql"),
        ("redis-cli|-a|hunter2", "redis-cli"),
        ("curl|-u|user:hunter2|http://db", "curl"),
        ("env|PASSWORD=hunter2|shop", "env"),
        ("node|-e|hunter2", "node"),
        ("node|--some-password|hunter2|app.js", "node"),
        ("node|/srv/app.js|--token|hunter2", "app.js"),
        ("node|/usr/bin/npx|--token|hunter2", "npx"),
        ("node|/app/.bin/nodemon|--exec|hunter2|app.js", "app.js"),
        ("node|/usr/bin/npm|--otp|hunter2|run|x", "npm"),
        ("node|/usr/bin/npm|run|x|--|--token=hunter2", "npm x"),
        ("node|/usr/bin/npm|run|--|hunter2", "npm"),
        ("python3|-c|hunter2", "python3"),
        ("python3|-Xhunter2|app.py", "app.py"),
        ("python3|/usr/bin/gunicorn|--env|hunter2:x|shop:app", "shop"),
        ("python3|/usr/bin/gunicorn|shop:app|--user|hunter2:x", "shop"),
        ("python3|/usr/bin/gunicorn|-e|hunter2:x", "gunicorn"),
        ("python3|-m|celery|-b|redis://:hunter2@db|worker", "celery"),
        ("java|-Dpassword=hunter2|-jar|x.jar", "x.jar"),
        ("java|-password|hunter2", "java"),
        ("java|-cp|a|shop.Main$|hunter2", "shop.Main"),
        ("ruby|--token|hunter2", "ruby"),
        ("ruby|/usr/bin/bundle|--token|hunter2|exec|puma", "bundle"),
        ("perl|-Mhunter2|x.pl", "x.pl"),
        ("php|-d|a=hunter2|x.php", "x.php"),
        ("sh|-c|PGPASSWORD=hunter2 psql -h db", "psql"),
        ("sh|-c|PGPASSWORD='a hunter2' psql -h db", "psql"),
        ("sh|-c|echo \"a; hunter2\" && mail", "mail"),
        ("sh|-c|exec -a hunter2 shop", "sh"),
        ("bash|-c|curl http://user:hunter2@host", "curl"),
        ("bash|--token|hunter2", "bash"),
        ("deno|run|https://user:hunter2@host/serve.ts?token=hunter2", "serve.ts"),
        ("deno|run|https://hunter2@host", "deno"),
        ("bun|--token|hunter2", "bun"),
        ("dotnet|--token|hunter.2", "dotnet"),
        ("beam.smp|-setcookie|hunter2|-sname|rabbit@box", "rabbit"),
    ] {
        let program = argv.split('|').next().unwrap_or_default();
        assert_eq!(name(program, argv), expected, "{argv}");
    }
}

#[test]
fn a_command_name_alone_is_called_by_its_first_word() {
    for (comm, expected) in [
        ("nginx", "nginx"),
        ("MainThread", "node"),
        ("(sd-pam)", "sd-pam"),
        ("[kthreadd]", "kthreadd"),
        ("kworker/0:1", "kworker"),
        ("kworker/u8:2-ev", "kworker"),
        ("ksoftirqd/0", "ksoftirqd"),
        ("/usr/bin/python", "python"),
        ("node /srv/shop/", "node"),
        ("python3 -m http", "python3"),
        ("gunicorn: maste", "gunicorn"),
        ("PM2 v5.3: God D", "PM2"),
        ("docker-proxy", "docker-proxy"),
        ("DB_PASSWORD=hun", "unknown"),
        ("user:hunter2", "unknown"),
        ("-phunter2", "unknown"),
        ("a\u{200b}b", "unknown"),
        ("", "unknown"),
    ] {
        assert_eq!(command_name(comm), expected, "{comm}");
        assert_eq!(process_name(comm, b""), expected, "{comm}");
    }
}

/// A value with the secret in it, as one argument.
fn value() -> impl Strategy<Value = String> {
    let words = "[a-z]{0,6}";
    prop_oneof![
        Just(SECRET.to_owned()),
        (words, words).prop_map(|(before, after)| format!("{before} {SECRET} {after}")),
        Just(format!("DB_PASSWORD={SECRET}")),
        Just(format!("postgres://user:{SECRET}@db/shop")),
        Just(format!("user:{SECRET}")),
        Just(format!("{SECRET}:app")),
        Just(format!("a; {SECRET} | b")),
        Just(format!("'{SECRET}")),
        Just(format!("/run/{SECRET}")),
        Just(format!("/run/{SECRET}/index.js")),
        Just(format!("{SECRET}/main.py")),
        Just(format!("[{SECRET}]")),
        Just(format!("-{SECRET}")),
        Just(format!("--x={SECRET}")),
    ]
}

/// A flag of anything, with its value.
fn flag() -> impl Strategy<Value = Vec<String>> {
    // None that names the program (`-m`, `-jar`, `--run`, `-f`, `-c` of a shell, `--app`,
    // `--project`).
    let long = "--[b-z]{2}[a-z]{2,9}(-[b-z]{3,8})?".prop_filter("says what runs", |flag| {
        !["--module", "--file", "--project"].contains(&flag.as_str())
    });
    (long, value(), any::<bool>()).prop_map(|(flag, value, joined)| {
        if joined { vec![format!("{flag}={value}")] } else { vec![flag, value] }
    })
}

/// A flag of one letter, of those that no program here takes without a value, and none that names
/// the application (`gunicorn -n`, `celery -A`).
fn short_flag() -> impl Strategy<Value = Vec<String>> {
    ("-[bdhjktu]", value()).prop_map(|(flag, value)| vec![flag, value])
}

fn programs() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop::sample::select(vec![
        ("node", "/srv/app.js"),
        ("node", "/usr/bin/npm"),
        ("node", "/usr/bin/npx"),
        ("MainThread", "/app/nodemon"),
        ("python3", "/srv/app.py"),
        ("python3", "/usr/bin/gunicorn"),
        ("python3.11", "/usr/bin/uvicorn"),
        ("python3", "/usr/bin/celery"),
        ("java", "com.shop.Main"),
        ("ruby", "/srv/app.rb"),
        ("ruby", "/usr/bin/bundle"),
        ("perl", "/srv/app.pl"),
        ("php", "/srv/app.php"),
        ("bash", "/srv/run.sh"),
        ("deno", "/srv/app.ts"),
        ("bun", "/srv/app.ts"),
        ("dotnet", "/srv/App.dll"),
        ("shop-api", "serve"),
        ("a-long-name-for-", "serve"),
        ("mysql", "db"),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_value_is_a_name(
        (comm, script) in programs(),
        before in prop::collection::vec(flag(), 0..3),
        after in prop::collection::vec(prop_oneof![flag(), short_flag()], 0..3),
        tail in prop::collection::vec(value(), 0..2),
        comm_is_title in any::<bool>(),
    ) {
        let mut arguments = vec![format!("/usr/bin/{comm}")];
        arguments.extend(before.into_iter().flatten());
        // A value stands behind the program: there must be one.
        arguments.push(script.to_owned());
        arguments.extend(after.into_iter().flatten());
        // Of tools with sub-commands the next word is the program.
        if !["npm", "npx", "bundle", "nodemon", "gunicorn", "uvicorn"].iter().any(|one| script.ends_with(one)) {
            arguments.extend(tail);
        }
        let joined = arguments.join(" ");
        for argv in [arguments.join("\0"), joined.clone()] {
            let comm = if comm_is_title { joined.as_str() } else { comm };
            let comm: String = comm.chars().take(15).collect();
            let found = process_name(&comm, argv.as_bytes());
            prop_assert!(!found.contains(SECRET), "{found}: {comm} {argv:?}");
            let alone = command_name(&comm);
            prop_assert!(!alone.contains(SECRET), "{alone}: {comm}");
        }
    }

    #[test]
    fn no_value_in_the_code_of_a_shell_is_a_name(
        assignments in prop::collection::vec("[A-Z]{1,6}=('a b;hunter2'|\"a && hunter2\"|hunter2|\\$\\(cat hunter2\\))", 0..3),
        prepare in prop::sample::select(vec!["", "cd /hunter2 && ", "set -e; ", "echo 'x; hunter2' | ", "export X=\"a | hunter2\"\n"]),
        tail in value(),
    ) {
        let code = format!("{prepare}{} shop {tail}", assignments.join(" "));
        let found = process_name("sh", format!("sh\0-c\0{code}").as_bytes());
        prop_assert_eq!(found, "shop", "{}", code);
    }

    #[test]
    fn no_value_in_the_title_of_a_server_is_a_name(
        flags in prop::collection::vec(flag(), 1..3),
        tail in value(),
    ) {
        let flags = flags.concat().join(" ");
        for text in [
            format!("[celeryd: celery@host:MainProcess] -active- ({flags} worker {tail})"),
            format!("[celeryd: celery@host:MainProcess] -active- (worker {flags} -A {tail})"),
            format!("[celeryd: celery@host:MainProcess] -active- (worker -A shop {flags} {tail})"),
            format!("puma 6.4.0 (tcp://0.0.0.0:80?{tail}) [shop]"),
            format!("puma 6.4.0 (tcp://0.0.0.0:80) {flags} {tail}"),
            format!("gunicorn: master x {tail}"),
            format!("gunicorn: {tail} [shop]"),
            format!("gunicorn: worker [shop:app] {tail}"),
            format!("gunicorn: worker [shop:app({tail})]"),
            format!("unicorn worker[0] {flags} {tail}"),
            format!("next-server (v14.2.35) {tail}"),
        ] {
            let found = title(&text);
            prop_assert!(!found.contains(SECRET), "{found}: {text}");
        }
    }

    #[test]
    fn a_directory_is_a_name_only_as_one_identifier(
        names in prop::collection::vec(prop_oneof![value(), "\\PC{0,60}"], 1..4),
        program in prop::sample::select(vec!["index.js", "dist/main.js", "src/../app.py", "."]),
    ) {
        let cwd = format!("/{}", names.join("/"));
        for argv in [format!("node\0{program}"), format!("node {program}")] {
            let found = process_name_in("node", argv.as_bytes(), &test_path(&cwd));
            let fits = |c: char| c.is_alphanumeric() || "._@+-".contains(c);
            prop_assert!(found.chars().all(fits) && found.chars().count() <= 64, "{found} in {cwd}");
            let is_whole = cwd.split('/').chain(["node", "index.js", "main.js", "app.py"]).any(|one| one == found);
            prop_assert!(is_whole, "{found} is a part of {cwd}");
        }
    }
}
