//! nats-server with JetStream.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::{START_TIMEOUT, fetch, free_ports, wait_until};
use bakeoff_transport::args::NatsArgs;

/// A broker on loopback.
pub struct NatsServer {
    port: u16,
    folder: TempDir,
    process: Process,
    env: Vec<(String, String)>,
}

impl NatsServer {
    /// A broker without authentication.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// A broker with more lines in its configuration: users, permissions, TLS.
    pub fn start_with(configuration: &str) -> Self {
        Self::start_as([], |port, data| {
            format!(
                "listen: 127.0.0.1:{port}\njetstream {{ store_dir: \"{}\" }}\n{configuration}\n",
                data.display()
            )
        })
    }

    /// A broker with a configuration of the caller's, made for a port of 127.0.0.1 and a folder for
    /// JetStream's data, and variables for its environment.
    pub fn start_as(
        env: impl IntoIterator<Item = (String, String)>,
        configuration: impl FnOnce(u16, &Path) -> String,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let [port] = free_ports();
        let text = configuration(port, &folder.path().join("jetstream"));
        fs::write(folder.path().join("nats.conf"), text).expect("the folder is writable");
        let env: Vec<_> = env.into_iter().collect();
        let process = launch(folder.path(), &env);
        let mut server = Self { port, folder, process, env };
        server.wait_ready();
        server
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn args(&self) -> NatsArgs {
        NatsArgs { nats: Some(self.url()), nats_connect_s: 5, ..NatsArgs::default() }
    }

    /// SIGKILL; the data stay.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts again on the same port and data, and waits until it takes connections.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = launch(self.folder.path(), &self.env);
        self.wait_ready();
    }

    pub fn pause(&self) {
        self.process.signal(libc::SIGSTOP);
    }

    pub fn resume(&self) {
        self.process.signal(libc::SIGCONT);
    }

    fn wait_ready(&mut self) {
        let port = self.port;
        let process = &mut self.process;
        wait_until("nats-server takes connections", START_TIMEOUT, || {
            process.assert_running();
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }
}

fn launch(folder: &Path, env: &[(String, String)]) -> Process {
    let mut command = Command::new(fetch::NATS.path());
    command.arg("-c").arg(folder.join("nats.conf")).envs(env.iter().cloned());
    Process::start(&mut command, folder.join("nats.log"))
}
