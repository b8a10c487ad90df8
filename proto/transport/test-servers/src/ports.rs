//! Free ports on loopback.

use std::net::TcpListener;

/// Ports that were free a moment ago. All are held until all are known, so that they differ.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| {
        TcpListener::bind("127.0.0.1:0").expect("the loopback interface has a free port")
    });
    listeners.map(|listener| listener.local_addr().expect("a bound socket has an address").port())
}
