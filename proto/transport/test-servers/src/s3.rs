//! SeaweedFS as an S3 store, with one bucket and two users.

use std::fs;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use tempfile::TempDir;

use super::process::Process;
use super::{START_TIMEOUT, fetch, free_ports, wait_until};
use bakeoff_transport::args::{StaticCredentials, StoreArgs};
use bakeoff_transport::store;

const READY_KEY: &str = ".ready";

/// An S3 store on loopback, with the bucket `results`.
pub struct S3Server {
    ports: [u16; 4],
    folder: TempDir,
    process: Process,
}

impl S3Server {
    pub const BUCKET: &str = "results";
    pub const ACCESS_KEY_ID: &str = "coordinator-key";
    pub const SECRET_ACCESS_KEY: &str = "coordinator-secret";
    /// May read, list and write objects of the bucket, and nothing else.
    pub const WORKER_ACCESS_KEY_ID: &str = "worker-key";
    pub const WORKER_SECRET_ACCESS_KEY: &str = "worker-secret";

    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let users = format!(
            r#"{{"identities":[
{{"name":"coordinator","credentials":[{{"accessKey":"{}","secretKey":"{}"}}],"actions":["Admin","Read","Write","List","Tagging"]}},
{{"name":"worker","credentials":[{{"accessKey":"{}","secretKey":"{}"}}],"actions":["Read:{b}","Write:{b}","List:{b}"]}}
]}}"#,
            Self::ACCESS_KEY_ID,
            Self::SECRET_ACCESS_KEY,
            Self::WORKER_ACCESS_KEY_ID,
            Self::WORKER_SECRET_ACCESS_KEY,
            b = Self::BUCKET,
        );
        fs::write(folder.path().join("s3.json"), users).expect("the folder is writable");
        let ports = ports_with_grpc();
        let process = launch(folder.path(), ports);
        let mut server = Self { ports, folder, process };
        server.wait_ready();
        server
    }

    pub fn port(&self) -> u16 {
        self.ports[3]
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// Arguments to open `s3://results/<prefix>` as the coordinator's user.
    pub fn args(&self, prefix: &str) -> StoreArgs {
        StoreArgs {
            store: Some(format!("s3://{}/{prefix}", Self::BUCKET)),
            s3_endpoint: Some(self.endpoint()),
            s3_region: Some("us-east-1".into()),
            static_credentials: Some(StaticCredentials {
                access_key_id: Self::ACCESS_KEY_ID.into(),
                secret_access_key: Self::SECRET_ACCESS_KEY.into(),
            }),
        }
    }

    /// The environment for a child process that uses the store.
    pub fn env(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", Self::ACCESS_KEY_ID.into()),
            ("AWS_SECRET_ACCESS_KEY", Self::SECRET_ACCESS_KEY.into()),
        ]
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn restart(&mut self) {
        self.process.kill();
        self.process = launch(self.folder.path(), self.ports);
        self.wait_ready();
    }

    /// Freezes the server: connections are taken, nothing is answered.
    pub fn pause(&self) {
        self.process.signal(libc::SIGSTOP);
    }

    pub fn resume(&self) {
        self.process.signal(libc::SIGCONT);
    }

    /// Ready when an object can be written: the port is open, and the bucket listed, before that.
    fn wait_ready(&mut self) {
        let args = self.args("");
        let process = &mut self.process;
        wait_until("the S3 server takes an object", START_TIMEOUT, || {
            process.assert_running();
            takes_an_object(&args)
        });
    }
}

/// SeaweedFS puts the gRPC port of each service 10000 above its HTTP port.
fn ports_with_grpc() -> [u16; 4] {
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    for _ in 0..200 {
        let ports: [u16; 4] = free_ports();
        let grpc = ports.map(|port| port.checked_add(10_000));
        let clash = |port: u16| ports.contains(&port) || !free(port);
        if grpc.iter().all(|port| port.is_some_and(|port| !clash(port))) {
            return ports;
        }
    }
    panic!("no four free ports with a free one 10000 above each");
}

fn launch(folder: &Path, [master, volume, filer, s3]: [u16; 4]) -> Process {
    let data = folder.join("data");
    fs::create_dir_all(&data).expect("the folder is writable");
    let mut command = Command::new(fetch::SEAWEED.path());
    command
        .args(["-logtostderr=true", "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
        .args(["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"])
        .arg(format!("-dir={}", data.display()))
        .arg(format!("-s3.config={}", folder.join("s3.json").display()))
        .arg(format!("-bucket={}", S3Server::BUCKET))
        .arg(format!("-master.port={master}"))
        .arg(format!("-volume.port={volume}"))
        .arg(format!("-filer.port={filer}"))
        .arg(format!("-s3.port={s3}"))
        .current_dir(folder);
    Process::start(&mut command, folder.join("weed.log"))
}

/// On a thread of its own, since the caller may be inside a runtime.
fn takes_an_object(args: &StoreArgs) -> bool {
    let attempt = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async {
            let store = store::open(args).await.ok()?;
            store::write(store.as_ref(), READY_KEY, Bytes::from("ready")).await.ok()?;
            store::remove(store.as_ref(), READY_KEY).await.ok()
        })
    };
    std::thread::scope(|scope| scope.spawn(attempt).join().ok().flatten().is_some())
}
