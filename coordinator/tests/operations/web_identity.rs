//! Credentials for S3 by web identity, as a Kubernetes service account gets them (IRSA): a token file
//! is exchanged at a security token service for keys that work for a while.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use bakeoff_test_servers::S3Server;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::programs::{coordinator, run};

const TOKEN: &str = "header.of-the-service-account.signature";
const ROLE: &str = "arn:aws:iam::123456789012:role/bakeoff";

/// A security token service, which speaks HTTPS only: takes one token and role, hands out the keys of
/// the S3 server.
struct TokenService {
    endpoint: String,
    /// Its certificate, in PEM.
    authority: PathBuf,
    /// Targets of the requests that came.
    asked: Arc<Mutex<Vec<String>>>,
}

impl TokenService {
    fn start(folder: &Path) -> Self {
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let authority = folder.join("authority.pem");
        std::fs::write(&authority, own.cert.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = own.signing_key.serialize_der().try_into().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("https://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let shared = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, config.clone(), &shared);
            }
        });
        Self { endpoint, authority, asked }
    }
}

fn answer(stream: TcpStream, config: Arc<ServerConfig>, asked: &Mutex<Vec<String>>) -> Option<()> {
    let connection = ServerConnection::new(config).ok()?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let mut request = String::new();
    stream.read_line(&mut request).ok()?;
    let target = request.split(' ').nth(1)?.to_owned();
    let mut header = String::new();
    while stream.read_line(&mut header).ok()? > 2 {
        header.clear();
    }
    let parameter = |name: &str| {
        let query = target.split_once('?')?.1;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    let known = parameter("Action") == Some("AssumeRoleWithWebIdentity")
        && parameter("WebIdentityToken") == Some(TOKEN)
        && parameter("RoleArn") == Some("arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fbakeoff");
    let (status, body) = if known {
        let body = format!(
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
             <AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
             <SessionToken></SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
             </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
            S3Server::ACCESS_KEY_ID,
            S3Server::SECRET_ACCESS_KEY
        );
        (200, body)
    } else {
        (403, "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>".to_owned())
    };
    asked.lock().ok()?.push(target);
    let (stream, length) = (stream.get_mut(), body.len());
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .ok()?;
    stream.conn.send_close_notify();
    stream.flush().ok()
}

#[test]
fn a_token_file_is_exchanged_for_keys_that_open_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let (s3, service) = (S3Server::start(), TokenService::start(folder.path()));
    let token = folder.path().join("token");
    let by_identity = |command: &mut Command| {
        command.current_dir(folder.path()).env("AWS_ENDPOINT_URL", s3.endpoint());
        command.env("AWS_REGION", "us-east-1").env("AWS_WEB_IDENTITY_TOKEN_FILE", &token);
        command.env("SSL_CERT_FILE", &service.authority);
        command.env("AWS_ROLE_ARN", ROLE).env("AWS_ENDPOINT_URL_STS", &service.endpoint);
        run(command.args(["run", "--store", "s3://results/identity"]))
    };
    std::fs::write(&token, TOKEN).unwrap();
    let done = by_identity(&mut coordinator()).expect(0);
    assert!(done.stdout.starts_with("demo: 12 of 12 done"), "{}", done.stdout);
    assert_eq!(service.asked.lock().unwrap().len(), 1, "the keys are kept while they are valid");

    std::fs::write(&token, "of somebody else").unwrap();
    let refused = by_identity(&mut coordinator());
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("web identity"), "{}", refused.stderr);
    for secret in ["of somebody else", "of%20somebody", TOKEN, S3Server::SECRET_ACCESS_KEY] {
        assert!(!refused.stderr.contains(secret), "{}", refused.stderr);
    }
}
