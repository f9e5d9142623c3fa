//! The codes of findings: one table of code, meaning and the page to read.
//!
//! A code means one thing and keeps its meaning. Where a finding is made says when it applies.

/// A code and its meaning, independent of the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The code.
    pub code: &'static str,
    /// Its meaning.
    pub meaning: &'static str,
    /// Where to read more: a page of the documentation and a heading there.
    pub docs: &'static str,
}

/// A row for each code: name of the constant, code, meaning, where to read more.
macro_rules! codes {
    ($($name:ident $code:literal $meaning:literal $docs:literal;)+) => {
        /// The codes, by meaning.
        pub mod code {
            $(#[doc = $meaning] pub const $name: &str = $code;)+
        }

        /// Every code.
        pub const CODES: &[Code] =
            &[$(Code { code: code::$name, meaning: $meaning, docs: $docs }),+];
    };
}

codes! {
    PORT_IN_USE "PO301"
        "bind or listen failed: the port is in use"
        "docs/runbooks/PortolanPortConflict.md#fix";
    PORT_PRIVILEGED "PO302"
        "bind failed: the port needs a privilege"
        "docs/findings.md#po302";
    ADDRESS_NOT_LOCAL "PO303"
        "bind failed: the host lacks the address"
        "docs/findings.md#po303";
    ALREADY_BOUND "PO304"
        "bind failed: the socket has a port already"
        "docs/findings.md#po304";
    EPHEMERAL_EXHAUSTED "PO305"
        "bind failed: no ephemeral port is free"
        "docs/runbooks/PortolanLocalPortsExhausted.md#fix";
    BIND_DENIED "PO306"
        "bind failed: a policy denies it"
        "docs/runbooks/PortolanPortReservationBreach.md#what-it-means";
    BIND_FAILED "PO307"
        "bind or listen failed for another reason"
        "docs/findings.md#po307";
    RESERVATION_BREACH "PO310"
        "a reserved port is used by another service"
        "docs/runbooks/PortolanPortReservationBreach.md#fix";
    RESERVED_EPHEMERAL "PO311"
        "a reserved port is in the ephemeral range"
        "docs/runbooks/PortolanPortConflict.md#usual-causes";
    RESERVATION_INACTIVE "PO312"
        "a reservation is not in force here"
        "docs/findings.md#po312";
    RESERVATION_NOT_ENFORCED "PO313"
        "a reservation cannot be enforced"
        "docs/findings.md#po313";
    ENFORCED_BY_NAME "PO314"
        "enforcement stops accidents, not attacks"
        "docs/findings.md#po314";
    ENDPOINT_OPEN "PS420"
        "the HTTP endpoint is open to the network"
        "docs/findings.md#ps420";
    CERTIFICATE_EXPIRED "PS421"
        "the certificate of the HTTP endpoint has to be renewed"
        "docs/findings.md#ps421";
    SECRET_READABLE "PS422"
        "a secret of the HTTP endpoint is readable by every user"
        "docs/findings.md#ps422";
    NOT_OBSERVED "PA501"
        "something is not observed on this host"
        "docs/runbooks/PortolanHookMissing.md#usual-causes";
    MORE_CPU_TIME "PA502"
        "something takes more CPU time on this host"
        "docs/findings.md#pa502";
    TABLE_FULL "PA503"
        "a kernel table is full"
        "docs/findings.md#pa503";
    NAMES_MISSING "PA504"
        "a source of names fails"
        "docs/findings.md#pa504";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_begin_with_their_area() {
        for (at, Code { code, meaning, .. }) in CODES.iter().enumerate() {
            let (area, number) = code.split_at(2);
            assert!(["PC", "PP", "PO", "PN", "PS", "PD", "PA"].contains(&area), "{code}");
            assert!(number.len() == 3 && number.bytes().all(|b| b.is_ascii_digit()), "{code}");
            assert!(CODES.iter().skip(at + 1).all(|other| other.code != *code), "{code} twice");
            assert!(!meaning.is_empty(), "{code}");
        }
    }

    #[test]
    fn where_to_read_more_exists() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../..");
        let list =
            std::fs::read_to_string(format!("{root}/docs/findings.md")).expect("findings.md");
        for Code { code, meaning, docs } in CODES {
            assert!(
                list.contains(&format!("| {code} | {meaning} |")),
                "{code} in docs/findings.md"
            );
            let (page, anchor) = docs.split_once('#').expect(docs);
            let text = std::fs::read_to_string(format!("{root}/{page}")).expect(docs);
            let headings = text.lines().filter_map(|line| line.strip_prefix("## "));
            let mut anchors = headings.map(|heading| heading.to_lowercase().replace(' ', "-"));
            assert!(anchors.any(|one| one == anchor), "{docs}");
        }
    }
}
