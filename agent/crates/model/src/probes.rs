//! What the agent looked at on this host beside the kernel's tables: processes, namespaces, sockets.

/// Looks so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbesView {
    /// By kind and result.
    pub looks: Vec<Looks>,
    /// Threads that hang in one past its deadline.
    pub stuck: u64,
}

/// Looks of one kind with one result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looks {
    /// What was looked at.
    pub kind: &'static str,
    /// What became of it.
    pub result: &'static str,
    /// How many.
    pub count: u64,
}
