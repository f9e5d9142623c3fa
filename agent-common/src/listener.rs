//! What the socket iteration reports of each listening socket.

crate::wire! {
    /// One listening socket as the socket iteration found it.
    pub struct ListenerRecord: 48 {
        /// Row of the owner.
        pub owner: u32,
        /// Network namespace inode.
        pub netns: u32,
        /// Connections waiting to be accepted.
        pub backlog: u32,
        /// How many may wait.
        pub max_backlog: u32,
        /// Address listened on; unspecified = all.
        pub address: [u32; 4],
        /// Socket cookie (0 if it never got one).
        pub cookie: u64,
        /// Port, host byte order.
        pub port: u16,
        /// 1 if an unspecified address means IPv6 only.
        pub v6_only: u8,
        /// Address family: 2 = AF_INET, 10 = AF_INET6.
        pub family: u8,
        /// Always zero.
        pub zero: u32,
    }
}
