//! One file per hook: the kernel prototype it relies on, and what it does with it.

mod inet_sock_set_state;
mod seed;
mod sk_data_ready;
mod sock_send_length;
mod sweep;
mod tcp_receive_reset;
mod tcp_retransmit_skb;
mod tcp_retransmit_synack;
mod tcp_send_reset;
