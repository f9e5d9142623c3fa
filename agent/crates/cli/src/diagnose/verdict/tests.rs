//! The table of verdicts: evidence of each fault, and what is said about it.

mod connecting;
mod evidence;
mod ordinary;
mod serving;
mod slowness;

use self::evidence::{Case, fails, probes, well};
use super::*;
use crate::diagnose::cause::Step;
use crate::diagnose::evidence::Host;

#[test]
fn each_fault_has_its_verdict() {
    for (name, change, cause, text, certainty) in cases() {
        let mut evidence = well();
        change(&mut evidence);
        let verdict = judge(&evidence);
        assert_eq!((verdict.cause, verdict.certainty), (*cause, *certainty), "{name}: {verdict:?}");
        assert!(verdict.text.contains(text), "{name}: {}", verdict.text);
        assert!(
            verdict.cause == Cause::Healthy || !verdict.look_at.is_empty(),
            "{name}: {verdict:?}"
        );
        assert!(!verdict.reason.is_empty(), "{name}");
    }
}

#[test]
fn the_step_of_a_fault_is_marked_and_only_good_steps_are_ruled_out() {
    use super::super::report::{Report, step};
    use super::super::steps::State;
    for (name, change, cause, ..) in cases() {
        let mut evidence = well();
        change(&mut evidence);
        let report = Report::of(evidence, Vec::new());
        assert_eq!(report.steps.len(), Step::ALL.len(), "{name}");
        if let Some(wanted) = cause.step() {
            assert_eq!(step(&report, wanted).state, State::Failed, "{name}");
            assert!(!report.is_not.contains(&wanted.subject()), "{name}");
        }
        for line in &report.steps {
            assert!(!line.text.is_empty(), "{name}: {line:?}");
        }
    }
}

#[test]
fn a_verdict_that_probes_contradict_is_less_certain() {
    let mut evidence = well();
    fails(&mut evidence, "unreachable", 30, 0);
    let verdict = judge(&evidence);
    assert_eq!((verdict.cause, verdict.certainty), (Cause::NoRoute, Certainty::Medium));
    assert!(verdict.reason.contains("it has passed or comes and goes"), "{}", verdict.reason);
    probes(&mut evidence, "timeout", 20);
    let verdict = judge(&evidence);
    assert_eq!(verdict.certainty, Certainty::Medium);
    assert!(verdict.reason.contains("the probes fail too, in another way"), "{}", verdict.reason);
    let mut evidence = well();
    probes(&mut evidence, "denied", 20);
    let verdict = judge(&evidence);
    assert_eq!((verdict.cause, verdict.certainty), (Cause::Denied, Certainty::Low));
}

#[test]
fn probes_alone_are_enough_without_an_agent() {
    let mut evidence = well();
    evidence.live = None;
    evidence.host = Host { skipped: Some("no agent".to_owned()), ..Host::default() };
    assert_eq!(judge(&evidence).cause, Cause::Healthy);
    assert_eq!(judge(&evidence).certainty, Certainty::Medium);
    probes(&mut evidence, "refused", 20);
    assert_eq!(judge(&evidence).cause, Cause::NothingListens);
    probes(&mut evidence, "timeout", 20);
    assert_eq!(judge(&evidence).cause, Cause::Dropped);
}

/// Every case, by the file of the verdict that it leads to.
fn cases() -> impl Iterator<Item = &'static Case> {
    [ordinary::CASES, connecting::CASES, serving::CASES, slowness::CASES].into_iter().flatten()
}
