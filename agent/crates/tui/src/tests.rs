//! The whole screen: every view in three widths over recorded answers, and what keys do.

use std::fmt::Write as _;
use std::path::Path;

use api_types::{Cause, History};
use cli::judgement::{self, Answers};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui_core::backend::TestBackend;
use ratatui_core::terminal::Terminal;

use super::*;
use crate::action::{Action, Page};
use crate::agents::{Heard, Look};
use crate::trend::Trend;

macro_rules! answer {
    ($name:literal) => {
        serde_json::from_str(include_str!(concat!("../../server/golden/", $name, ".json")))
            .expect($name)
    };
}

/// The answers of an agent that has seen some faults: the goldens of the API.
fn answers() -> Answers {
    Answers {
        status: answer!("status"),
        edges: answer!("edges"),
        services: answer!("services"),
        listeners: answer!("listeners"),
        ports: answer!("ports"),
        conflicts: answer!("conflicts"),
        reservations: answer!("reservations"),
        segments: Some(answer!("segments")),
        balance: answer!("balance"),
        events: answer!("events"),
        timeouts: answer!("timeouts"),
    }
}

fn look(answers: Answers) -> Look {
    let history: History = answer!("history");
    let mut trend = Trend::default();
    trend.add(&history);
    Look { found: judgement::findings(&answers), answers, trend }
}

fn host(name: &str, answers: Answers, now: Instant) -> Host {
    Host { name: name.to_owned(), look: Some(Arc::new(look(answers))), error: None, heard: now }
}

fn app(hosts: Vec<Host>) -> App {
    App::new(hosts, Wanted::default(), WindowChoice::Last(60), Duration::from_secs(1))
}

/// The screen of one host.
fn one(now: Instant) -> App {
    app(vec![host("shop-01", answers(), now)])
}

fn press(app: &mut App, keys: &str) -> Action {
    let mut action = Action::Draw;
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '↓' => KeyCode::Down,
            c => KeyCode::Char(c),
        };
        action = app.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
    action
}

/// What a terminal of this size shows.
fn screen(app: &mut App, width: u16, height: u16, now: Instant) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| app.draw(frame, now)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..height {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        writeln!(text, "{}", line.trim_end()).expect("a String");
    }
    text
}

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.txt"));
    if std::env::var_os("PORTOLAN_BLESS").is_some() {
        std::fs::write(&path, text).expect("written");
        return;
    }
    let expected = std::fs::read_to_string(&path).expect("written with PORTOLAN_BLESS=1");
    assert_eq!(text, expected, "{name}");
}

#[test]
fn every_view_fits_into_three_widths() {
    let now = Instant::now();
    for (key, view) in View::KEYS {
        for width in [80, 100, 160] {
            let mut app = one(now);
            press(&mut app, &key.to_string());
            let text = screen(&mut app, width, 40, now);
            golden(&format!("{}-{width}", view.as_str()), &text);
        }
    }
}

#[test]
fn what_matters_most_is_in_every_width() {
    let now = Instant::now();
    for width in [80, 90, 100, 120, 160, 250] {
        let text = screen(&mut one(now), width, 30, now);
        for title in ["CLIENT", "SERVER", "PORT", "REQ/S", "P99", "ERR%", "WHY"] {
            assert!(text.contains(title), "{width}: {title}\n{text}");
        }
    }
    // No size is too small to be drawn.
    for (width, height) in [(1, 1), (20, 3), (39, 8), (80, 1), (1, 80)] {
        for key in ["", "\n", "?", "/abc", "8", "p\n"] {
            let mut app = one(now);
            press(&mut app, key);
            screen(&mut app, width, height, now);
        }
    }
}

#[test]
fn an_edge_is_explained_in_full() {
    let now = Instant::now();
    let mut app = one(now);
    press(&mut app, "\n");
    golden("edge-100", &screen(&mut app, 100, 60, now));
    press(&mut app, "\x1b2\n");
    golden("service-100", &screen(&mut app, 100, 60, now));
    press(&mut app, "\x1b4\n");
    golden("conflict-100", &screen(&mut app, 100, 50, now));
    press(&mut app, "\x1bp\n");
    golden("problem-100", &screen(&mut app, 100, 50, now));
    press(&mut app, "\x1b8\n");
    golden("event-100", &screen(&mut app, 100, 40, now));
    press(&mut app, "?");
    golden("help-100", &screen(&mut app, 100, 50, now));
}

#[test]
fn once_is_the_same_as_text_and_as_json() {
    let now = Instant::now();
    let hosts = [host("shop-01", answers(), now)];
    let wanted = Wanted::default();
    let text = |room| {
        let every = Duration::from_secs(1);
        report::plain(&report::text(&hosts, &wanted, WindowChoice::Last(60), every, room))
    };
    golden("once-pipe", &text(None));
    golden("once-100", &text(Some(100)));
    let json = report::json(&hosts, &wanted, WindowChoice::Last(60)).expect("JSON");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["rows"][0]["mark"], "error");
    assert_eq!(json["rows"][0]["server"], "postgres");
    assert_eq!(
        (&json["rows"][1]["mark"], &json["rows"][1]["client"]),
        (&"warning".into(), &"shop".into())
    );
    assert_eq!(json["hosts"][0]["host"], "shop-01");
    assert_eq!(json["problems"][0]["severity"], "error");
    assert_eq!((&json["window"], &json["view"]), (&"1m".into(), &"edges".into()));
}

#[test]
fn hosts_share_a_screen_and_each_row_names_its_own() {
    let now = Instant::now();
    let mut gone = host("node2", answers(), now);
    gone.error = Some("no agent answers at http://node2:10062".to_owned());
    let mut app = app(vec![host("node1", answers(), now), gone]);
    let later = now + Duration::from_secs(7);
    golden("hosts-120", &screen(&mut app, 120, 40, later));
    press(&mut app, "/host=node1\n");
    let text = screen(&mut app, 120, 40, now);
    assert!(!text.contains("✗  node2") && text.contains("✗  node1"), "{text}");
}

#[test]
fn an_agent_that_is_gone_keeps_its_numbers_and_says_how_old_they_are() {
    let now = Instant::now();
    let mut app = one(now);
    let heard = |result| Heard { host: 0, result };
    app.hear(heard(Err("no agent\x1b[2J answers".to_owned())), now);
    let text = screen(&mut app, 100, 30, now + Duration::from_secs(12));
    assert!(text.contains("✗ shop-01: no answer for 12 s: no agent_[2J answers"), "{text}");
    assert!(text.contains("postgres"), "{text}");
    app.hear(heard(Ok(Arc::new(look(answers())))), now + Duration::from_secs(13));
    let text = screen(&mut app, 100, 30, now + Duration::from_secs(13));
    assert!(!text.contains("no answer"), "{text}");
    let text = screen(&mut app, 100, 30, now + Duration::from_secs(30));
    assert!(text.contains("! shop-01: slow: these numbers are 17 s old"), "{text}");
}

#[test]
fn before_the_first_answer_the_screen_says_what_it_waits_for() {
    let now = Instant::now();
    let waiting = Host { name: "far".to_owned(), look: None, error: None, heard: now };
    let text = screen(&mut app(vec![waiting]), 80, 24, now + Duration::from_secs(3));
    assert!(text.contains("· far: asking for 3 s"), "{text}");
}

#[test]
fn names_cannot_control_the_terminal() {
    let now = Instant::now();
    let mut bad = answers();
    for edge in &mut bad.edges.edges {
        edge.client = "a\x1b[2J\u{202e}b\n".to_owned();
        edge.why =
            vec![Cause { cause: "x".to_owned(), text: "\x1b]0;title\x07".to_owned(), count: 1 }];
    }
    for key in ["", "\n", "p", "8"] {
        let mut app = app(vec![host("h\x1b[1m", bad.clone(), now)]);
        press(&mut app, key);
        let lines = app.lines(screen::Room { width: 100, height: 40 }, now);
        let is_odd = |c: char| c.is_control() || c == '\u{202e}';
        let texts = lines.iter().flat_map(|line| &line.spans).map(|span| &span.content);
        assert!(texts.clone().all(|text| !text.contains(is_odd)), "{key:?}");
        let hosts = [host("h\x1b[1m", bad.clone(), now)];
        let window = WindowChoice::Last(60);
        let printed = report::text(&hosts, &Wanted::default(), window, Duration::ZERO, None);
        let printed = report::plain(&printed);
        assert!(!printed.contains(|c| is_odd(c) && c != '\n'), "{printed:?}");
    }
}

#[test]
fn a_frozen_screen_shows_what_was_there_until_it_goes_on() {
    let now = Instant::now();
    let mut app = one(now);
    let before = screen(&mut app, 100, 30, now);
    press(&mut app, "z");
    let mut nothing = answers();
    nothing.edges.edges.clear();
    app.hear(Heard { host: 0, result: Ok(Arc::new(look(nothing))) }, now);
    let frozen = screen(&mut app, 100, 30, now);
    assert!(frozen.contains("FROZEN"), "{frozen}");
    assert_eq!(frozen.contains("prod/shop → postgres"), before.contains("prod/shop → postgres"));
    assert!(frozen.contains("CLIENT"), "{frozen}");
    press(&mut app, "z");
    let after = screen(&mut app, 100, 30, now);
    assert!(after.contains("No connections."), "{after}");
}

#[test]
fn keys_choose_windows_sides_orders_and_views() {
    let now = Instant::now();
    let mut app = one(now);
    assert_eq!(press(&mut app, "w"), Action::Window(WindowChoice::Last(300)));
    assert_eq!(press(&mut app, "w"), Action::Window(WindowChoice::Start));
    assert_eq!(press(&mut app, "w"), Action::Window(WindowChoice::Last(10)));
    press(&mut app, "c");
    assert!(screen(&mut app, 100, 30, now).contains("side: client"));
    press(&mut app, "s");
    assert!(screen(&mut app, 100, 30, now).contains("sort client"));
    press(&mut app, "9");
    assert_eq!(app.wanted.view, View::Timeouts);
    assert_eq!(press(&mut app, "7"), Action::Draw);
    assert!(screen(&mut app, 100, 30, now).contains("operations need protocols"));
    assert_eq!(press(&mut app, "q"), Action::Quit);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(app.press(interrupt), Action::Quit);
}

#[test]
fn a_filter_is_written_refused_and_removed() {
    let now = Instant::now();
    let mut app = one(now);
    press(&mut app, "/server=postgers\n");
    assert!(screen(&mut app, 100, 30, now).contains("Nothing passes the filter"));
    press(&mut app, "\x1b/q99>1\n");
    let text = screen(&mut app, 100, 30, now);
    assert!(text.contains("\"q99\" is not a field; did you mean p99?"), "{text}");
    press(&mut app, "\x1b/server=postgres\n");
    assert_eq!(app.table().rows.len(), 2);
    press(&mut app, "\x1b");
    assert!(app.wanted.filter.is_empty());
}

#[test]
fn the_selected_row_is_diagnosed_and_the_report_is_shown() {
    let now = Instant::now();
    let mut app = one(now);
    let action = press(&mut app, "↓d");
    let (client, server) = ("prod/shop".to_owned(), "postgres:5432".to_owned());
    assert_eq!(action, Action::Diagnose { host: 0, client, server });
    app.take_report("diagnose another one", "wrong");
    app.take_report("diagnose prod/shop postgres:5432", "VERDICT\x1b[2J refused\nnext");
    let text = screen(&mut app, 100, 30, now);
    assert!(text.contains("VERDICT_[2J refused\nnext"), "{text}");
    press(&mut app, "\x1b0");
    assert_eq!(press(&mut app, "d"), Action::Draw);
    assert!(screen(&mut app, 100, 30, now).contains("needs a row with a client"));
}

#[test]
fn the_selection_stays_on_its_row_and_a_row_that_goes_is_missed() {
    let now = Instant::now();
    let mut app = one(now);
    press(&mut app, "a↓");
    let key = app.table().rows[1].key.clone();
    press(&mut app, "\n");
    assert_eq!(app.page, Page::Row(key));
    let mut nothing = answers();
    nothing.edges.edges.clear();
    app.hear(Heard { host: 0, result: Ok(Arc::new(look(nothing))) }, now);
    assert!(screen(&mut app, 100, 30, now).contains("no longer among the answers"));
    press(&mut app, "\x1b");
    assert_eq!(app.page, Page::Table);
    screen(&mut app, 100, 30, now);
}

#[test]
fn rows_are_sorted_by_what_is_asked_for() {
    let now = Instant::now();
    let hosts = [host("shop-01", answers(), now)];
    let first = |sort| {
        let wanted = Wanted { sort: Sort::named(sort).expect(sort), ..Wanted::default() };
        wanted.table(&hosts).rows[0].cells[1].clone()
    };
    assert_eq!((first("why"), first("client")), ("(listener)".to_owned(), "internet".to_owned()));
    assert_eq!(first("port"), "internet");
    assert!(Sort::named("nothing").is_err());
}
