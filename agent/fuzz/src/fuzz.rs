//! The program that `cargo xtask fuzz` runs: one body, named by `PORTOLAN_FUZZ_BODY`.

#![no_main]

use std::sync::OnceLock;

use agent_fuzz::{BODIES, Body};
use libfuzzer_sys::fuzz_target;

static BODY: OnceLock<Body> = OnceLock::new();

fn body() -> Body {
    *BODY.get_or_init(|| {
        let name = std::env::var("PORTOLAN_FUZZ_BODY").unwrap_or_default();
        let found = BODIES.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("PORTOLAN_FUZZ_BODY names no body: {name:?}")).1
    })
}

fuzz_target!(|bytes: &[u8]| body()(bytes));
