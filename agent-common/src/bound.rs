//! Sockets that hold a port: who bound them, and what the agent reads of each.

crate::wire! {
    /// Who bound a socket; lives in its storage and dies with it.
    pub struct BoundState: 24 {
        /// Row of the owner of the process that called bind.
        pub owner: u32,
        /// That process.
        pub tgid: u32,
        /// When, CLOCK_MONOTONIC microseconds; 0 = before the agent.
        pub since_us: u64,
        /// The socket's cookie.
        pub cookie: u64,
    }

    /// One socket that holds a port, as the agent found it.
    pub struct BoundRecord: 72 {
        /// Row of the owner.
        pub owner: u32,
        /// The process that called bind.
        pub tgid: u32,
        /// When, CLOCK_MONOTONIC microseconds; 0 = before the agent.
        pub since_us: u64,
        /// The socket's cookie.
        pub cookie: u64,
        /// Network namespace inode.
        pub netns: u32,
        /// User id of the socket's creator.
        pub uid: u32,
        /// Local address; unspecified = all.
        pub address: [u32; 4],
        /// The device the socket is bound to, 0 = none.
        pub device: u32,
        /// Connections waiting to be accepted.
        pub backlog: u32,
        /// How many may wait.
        pub max_backlog: u32,
        /// Port, host byte order.
        pub port: u16,
        /// IP protocol: 6 = TCP, 17 = UDP.
        pub protocol: u8,
        /// State as in include/net/tcp_states.h, for UDP too.
        pub state: u8,
        /// `attempt::REUSE_ADDRESS` to `attempt::IS_V6`.
        pub options: u8,
        /// 1 if the kernel made the socket for itself (VXLAN, WireGuard, NFS): no process has it.
        pub is_kernel: u8,
        /// Always zero.
        pub zero: [u8; 2],
        /// Inode of the socket, as in /proc/PID/fd; 0 if unknown.
        pub inode: u32,
    }
}
