//! try
fn main() {
    tracing_subscriber::fmt().init();
    let options = portolan::kernel::load::Options { edges: 1024, owners: 256, internal_ranges: vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.0/8".parse().unwrap()], requests: true, pin: None, bpf_log: false, run_stats: true, masked: vec![] };
    let mut k = portolan::kernel::load::Kernel::start(&options).unwrap();
    for h in &k.hooks { println!("{} {:?}", h.hook.name, h.result.as_ref().map(|_| ()).map_err(|e| e.clone())); }
    println!("{:?}", k.disabled);
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1));
        let d = k.drain.run().unwrap();
        println!("ledger {:?} {:?}", d.ledger.seen, d.ledger.lost);
        for (i, o) in &d.owners { println!("owner {i} {} {} {:?} {:?}", o.key.netns, o.key.cgroup, String::from_utf8_lossy(&o.key.comm), String::from_utf8_lossy(&o.argv[..o.argv_len as usize])); }
        for e in &d.edges { if e.born_us > 0 { println!("edge {} {:?} conn {:?} o{} c{} s{} r{} rt{} req{} {:?} rtt{} {:?}", e.slot, e.key, e.counters.connects, e.counters.opened, e.counters.closed, e.counters.sent_bytes, e.counters.received_bytes, e.counters.retransmits, e.counters.request.count(), e.counters.request.quantile_us(0.5), e.counters.rtt.count(), e.counters.connect.quantile_us(0.5)); } }
        println!("listeners {:?}", d.listeners.map(|l| l.len())); for e in d.events { println!("{e:?}"); }
    }
}
