//! Interim start until the command line lands.
fn main() {
    tracing_subscriber::fmt().init();
    let loaded = portolan::config::load(None, std::env::vars(), &[]).unwrap();
    portolan::pipeline::run(&loaded.config).unwrap();
}
