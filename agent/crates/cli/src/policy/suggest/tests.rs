//! Segments from the shop.

use super::*;
use crate::policy::fixture::{answer, flow, observed};

#[test]
fn namespaces_become_segments_and_what_connected_may() {
    let text = text(&observed(), By::Namespace).expect("segments");
    let body = text.split_once("\n\n").map(|(_, body)| body).unwrap_or_default();
    assert_eq!(
        body,
        "\
[segments]
allow = [
  # cron -> mail:25: 1 connection, 2027-01-15T07:10:00Z to 2027-01-15T07:59:00Z
  \"cron -> mail\",
  # shop/api -> data/db:5432: 15 connections, 2027-01-15T07:10:00Z to 2027-01-15T07:59:00Z
  \"shop -> data\",
]
# `outside` is what has no name here: addresses, names from DNS, the internet. What connected is not
# judged; what never did would be reported.
# not judged: outside -> shop
# internet -> shop/web:443: 1200 connections, 2027-01-15T07:10:00Z to 2027-01-15T07:59:00Z
# not judged: shop -> outside
# shop/api -> pay.example:443: 5 connections, 2027-01-15T07:10:00Z to 2027-01-15T07:59:00Z
deny = [
  \"outside -> cron\",
  \"cron -> outside\",
  \"outside -> data\",
  \"data -> outside\",
  \"outside -> mail\",
  \"mail -> outside\",
]

[segments.cron]
services = [\"cron\"]

[segments.data]
namespaces = [\"data\"]

[segments.mail]
services = [\"mail\"]

[segments.shop]
namespaces = [\"shop\"]
"
    );
}

#[test]
fn a_service_of_the_host_is_not_taken_for_one_of_a_namespace() {
    let flows = vec![flow("shop/web", "db", 5432, 1), flow("shop/web", "shop/db", 5432, 1)];
    let text = text(&Observed::of(&[answer(flows)], None), By::Namespace).expect("segments");
    assert!(text.contains("[segments.db]\nservices = [\"db\"]\n"), "{text}");
    assert!(text.contains("namespaces = [\"shop\"]\nservices = [\"shop/db\"]\n"), "{text}");
}

#[test]
fn segments_that_would_be_too_many_or_none_are_refused_with_the_fix() {
    let many = (0..40).map(|i| flow(&format!("a{i}/web"), &format!("b{i}/db"), 1, 1)).collect();
    let error = text(&Observed::of(&[answer(many)], None), By::Service).expect_err("refused");
    assert!(error.to_string().contains("80 segments, and 64 are possible; use --by namespace"));
    let none = vec![flow("10.0.0.1", "internet", 1, 1)];
    let error = text(&Observed::of(&[answer(none)], None), By::Service).expect_err("refused");
    assert!(error.to_string().contains("no service with a name was observed"));
}
