//! The agent's figure beside the reference, as lines that `cargo xtask bench p11` collects.

use serde_json::json;

/// Two means, in seconds: of `what`, against a reference.
pub fn latency(what: &str, against: &str, ours: f64, truth: f64) {
    let seconds = json!({ "ours": ours, "truth": truth });
    println!("FIGURE {}", json!({ "what": what, "against": against, "seconds": seconds }));
}

/// Two counts.
pub fn count(what: &str, against: &str, ours: u64, truth: u64) {
    let counts = json!({ "ours": ours, "truth": truth });
    println!("FIGURE {}", json!({ "what": what, "against": against, "counts": counts }));
}
