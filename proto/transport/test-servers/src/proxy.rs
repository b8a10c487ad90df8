//! A TCP proxy that lets requests through and can lose what comes back.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the proxy does to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The request arrives; the connection breaks when the answer comes.
    DropAnswers,
    /// The same for HTTP requests that change something; reads are answered.
    DropAnswersToWrites,
    /// Connections break, and new ones are refused.
    Cut,
}

/// A proxy in front of a server on loopback. Lives on the runtime it was started on.
pub struct Proxy {
    address: SocketAddr,
    fault: Arc<watch::Sender<Fault>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy in front of 127.0.0.1:`target`.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(target: u16) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let fault = Arc::new(watch::Sender::new(Fault::None));
        let shared = fault.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *shared.borrow() != Fault::Cut {
                    tokio::spawn(relay(client, target, shared.subscribe()));
                }
            }
        });
        Ok(Self { address, fault, task })
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What happens to connections from now on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(mut client: TcpStream, target: u16, mut fault: watch::Receiver<Fault>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let answers = fault.clone();
    // One request at a time travels on a connection.
    let writing = AtomicBool::new(false);
    let requests = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let n = from_client.read(&mut buffer).await?;
            if n == 0 {
                return io::Result::Ok(());
            }
            match buffer.split(|byte| *byte == b' ').next() {
                Some(b"GET" | b"HEAD") => writing.store(false, Ordering::SeqCst),
                Some(b"PUT" | b"POST" | b"DELETE") => writing.store(true, Ordering::SeqCst),
                _ => {}
            }
            to_server.write_all(&buffer[..n]).await?;
        }
    };
    let replies = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let n = from_server.read(&mut buffer).await?;
            let dropped = match *answers.borrow() {
                Fault::DropAnswers => true,
                Fault::DropAnswersToWrites => writing.load(Ordering::SeqCst),
                Fault::None | Fault::Cut => false,
            };
            if n == 0 || dropped {
                return io::Result::Ok(());
            }
            to_client.write_all(&buffer[..n]).await?;
        }
    };
    // Whichever ends first takes the connection with it.
    tokio::select! {
        _ = requests => {}
        _ = replies => {}
        _ = fault.wait_for(|fault| *fault == Fault::Cut) => {}
    }
}
