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
    CONNECTS_REFUSED "PC101"
        "connects are refused"
        "docs/runbooks/PortolanConnectionsRefused.md#fix";
    CONNECTS_UNREACHABLE "PC102"
        "connects fail: no route, or a rule rejects them"
        "docs/findings.md#pc102";
    CONNECTS_TIME_OUT "PC103"
        "connects time out"
        "docs/runbooks/PortolanConnectionsTimingOut.md#fix";
    CONNECTS_FAIL_LOCALLY "PC104"
        "connects fail on the client's own side"
        "docs/findings.md#pc104";
    NO_LOCAL_PORT "PC105"
        "connects fail: no local port is free"
        "docs/runbooks/PortolanLocalPortsExhausted.md#fix";
    UNANSWERED "PC106"
        "requests are not answered"
        "docs/runbooks/PortolanRequestsUnanswered.md#fix";
    CONNECTIONS_DIE "PC107"
        "connections die: the other end no longer answers"
        "docs/runbooks/PortolanConnectionsAborted.md#fix";
    IDLE_REUSE "PC108"
        "connections are used again after the server closed them"
        "docs/runbooks/PortolanKeepaliveMismatch.md#fix";
    CONNECTIONS_RESET "PC109"
        "connections are reset"
        "docs/runbooks/PortolanResetStorm.md#fix";
    ERROR_RESPONSES "PC110"
        "requests are answered with errors"
        "docs/runbooks/PortolanErrorResponses.md#fix";
    SLOW "PP201"
        "requests are slow"
        "docs/runbooks/PortolanLatencyHigh.md#fix";
    UNBALANCED "PP202"
        "load is not spread evenly"
        "docs/runbooks/PortolanUnevenBalance.md#fix";
    ACCEPT_QUEUE "PP203"
        "an accept queue is full"
        "docs/runbooks/PortolanListenOverflow.md#fix";
    RETRANSMITS "PP204"
        "segments are retransmitted"
        "docs/runbooks/PortolanRetransmitsHigh.md#fix";
    NOT_READING "PP205"
        "a program does not read what arrives"
        "docs/runbooks/PortolanReceiverNotReading.md#fix";
    NOT_CLOSED "PP206"
        "a program does not close its connections"
        "docs/runbooks/PortolanConnectionsNotClosed.md#fix";
    KEEPALIVE_MISMATCH "PP231"
        "the server closes idle connections that its client still uses"
        "docs/runbooks/PortolanKeepaliveMismatchAhead.md#fix";
    WAITS_LONGER "PP232"
        "a service waits longer for what it calls than its caller waits for it"
        "docs/findings.md#pp232";
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
    LOCAL_PORTS_LOW "PO320"
        "local ports are running out"
        "docs/runbooks/PortolanLocalPortsLow.md#fix";
    LISTENS_IN_EPHEMERAL "PO321"
        "a service listens in the ephemeral range"
        "docs/findings.md#po321";
    CONNTRACK_FULL "PN601"
        "connection tracking is nearly full"
        "docs/findings.md#pn601";
    INTERFACE_DROPS "PN602"
        "an interface drops packets or counts errors"
        "docs/findings.md#pn602";
    NEIGHBOURS_FULL "PN603"
        "the neighbour table is nearly full"
        "docs/findings.md#pn603";
    TCP_MEMORY "PN604"
        "TCP is short of memory"
        "docs/findings.md#pn604";
    MTU_DIFFERS "PN605"
        "the two ends of a link differ in MTU"
        "docs/findings.md#pn605";
    ADDRESS_TWICE "PN606"
        "an address is used twice in one network"
        "docs/findings.md#pn606";
    NO_DEFAULT_ROUTE "PN607"
        "connects fail, and there is no default route"
        "docs/findings.md#pn607";
    SUBNETS_OVERLAP "PN608"
        "two networks have overlapping subnets"
        "docs/findings.md#pn608";
    BACKLOG_CAPPED "PN609"
        "the kernel limits accept queues"
        "docs/findings.md#pn609";
    VIOLATION "PS401"
        "a connection is not allowed by the segments"
        "docs/runbooks/PortolanSegmentViolation.md#fix";
    STORE_EXPOSED "PS410"
        "a data store listens on all interfaces of the host"
        "docs/findings.md#ps410";
    SERVICE_CERTIFICATE "PS411"
        "the certificate of a service has to be renewed"
        "docs/findings.md#ps411";
    ENDPOINT_OPEN "PS420"
        "the HTTP endpoint is open to the network"
        "docs/findings.md#ps420";
    CERTIFICATE_EXPIRED "PS421"
        "the certificate of the HTTP endpoint has to be renewed"
        "docs/findings.md#ps421";
    SECRET_READABLE "PS422"
        "a secret of the HTTP endpoint is readable by every user"
        "docs/findings.md#ps422";
    RESOLVER_ABSENT "PD701"
        "no program listens at the configured DNS server"
        "docs/findings.md#pd701";
    RESOLVER_FAILS "PD702"
        "connects to a DNS server fail"
        "docs/findings.md#pd702";
    RESOLVER_SILENT "PD703"
        "a DNS server does not answer"
        "docs/findings.md#pd703";
    LOOKUPS_FAIL "PD704"
        "DNS lookups fail"
        "docs/findings.md#pd704";
    ABSENT_NAMES "PD705"
        "most DNS lookups are for names that do not exist"
        "docs/findings.md#pd705";
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
    EVENTS_DROPPED "PA505"
        "events were dropped, and are in no count"
        "docs/runbooks/PortolanEventsLost.md#fix";
    UNIDENTIFIED "PA506"
        "connections have no name"
        "docs/runbooks/PortolanCoverageLow.md#fix";
    MEMORY_SHORT "PA507"
        "memory is short: new edges are counted as other"
        "docs/findings.md#pa507";
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
