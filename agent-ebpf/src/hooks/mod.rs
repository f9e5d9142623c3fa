//! One file per hook: the kernel prototype it relies on, and what it does with it.

mod bind4;
mod bind6;
mod bootstrap_tcp;
mod bootstrap_udp;
mod bound_sockets;
mod connect4;
mod connect6;
mod expire_attempts;
mod inet6_bind_sk;
mod inet_bind_sk;
mod inet_sock_set_state;
mod iterate_sockets;
mod iterate_table;
mod post_bind4;
mod post_bind6;
mod probe_cgroup;
mod probe_function;
mod sendmsg4;
mod sendmsg6;
mod sk_data_ready;
mod sock_release;
mod sock_send_length;
mod tcp_receive_reset;
mod tcp_retransmit_skb;
mod tcp_retransmit_synack;
mod tcp_send_reset;
