//! One suite that every store passes: in memory, in a folder, and on a real S3 server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bakeoff_test_servers::{Fault, Proxy, S3Server, free_ports};
use bakeoff_transport::args::{StaticCredentials, StoreArgs};
use bakeoff_transport::store::{self, Created, StoreError, create_if_absent};
use bytes::Bytes;
use futures::future::join_all;
use object_store::ObjectStore;

async fn conforms(store: Arc<dyn ObjectStore>) {
    // A race to create has one winner, and the others change nothing.
    let contents: Vec<Bytes> = (0..8).map(|n| Bytes::from(format!("writer {n}"))).collect();
    let tries = contents.iter().map(|c| create_if_absent(store.as_ref(), "s/metrics/a", c.clone()));
    let outcomes: Vec<Created> = join_all(tries).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<_> = (0..8).filter(|n| outcomes[*n] == Created::Ours).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    let found = store::read(store.as_ref(), "s/metrics/a").await.unwrap().unwrap();
    assert_eq!(found, contents[winners[0]]);

    // Our own bytes are ours however often they are sent: an answer may have been lost.
    let again = create_if_absent(store.as_ref(), "s/metrics/a", found).await.unwrap();
    assert_eq!(again, Created::Ours);

    store::write(store.as_ref(), "s/metrics/b", Bytes::from("1")).await.unwrap();
    store::write(store.as_ref(), "s/metrics/b", Bytes::from("22")).await.unwrap();
    store::write(store.as_ref(), "s/other", Bytes::from("")).await.unwrap();
    let listed = store::list(store.as_ref(), "s/metrics").await.unwrap();
    let names: Vec<_> = listed.iter().map(|m| (m.location.to_string(), m.size)).collect();
    assert_eq!(names, [("s/metrics/a".into(), 8), ("s/metrics/b".into(), 2)]);

    assert!(store::exists(store.as_ref(), "s/other").await.unwrap());
    store::remove(store.as_ref(), "s/other").await.unwrap();
    store::remove(store.as_ref(), "s/other").await.unwrap();
    assert!(!store::exists(store.as_ref(), "s/other").await.unwrap());
    assert!(store::read(store.as_ref(), "s/other").await.unwrap().is_none());
}

#[tokio::test]
async fn memory() {
    conforms(store::memory()).await;
}

#[tokio::test]
async fn folder() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/new", folder.path().display());
    let store = store::open(&StoreArgs { store: Some(url), ..StoreArgs::default() }).await.unwrap();
    conforms(store.clone()).await;
    // A folder where an object should be.
    let error = store::write(store.as_ref(), "s/metrics", Bytes::from("1")).await.unwrap_err();
    let address = format!("writing s/metrics in {}/new: ", folder.path().display());
    assert!(error.to_string().starts_with(&address), "{error}");
}

/// One server for all: it takes a second to start.
#[tokio::test(flavor = "multi_thread")]
async fn s3() {
    let mut server = S3Server::start();
    conforms(store::open(&server.args("a/prefix")).await.unwrap()).await;
    conforms(store::open(&server.args("")).await.unwrap()).await;
    wrong_settings_are_named(&server).await;
    a_lost_answer_is_resolved_by_reading_back(&server).await;
    an_outage_ends_in_an_error_and_not_in_a_wait(&mut server).await;
}

async fn wrong_settings_are_named(server: &S3Server) {
    let wrong = |secret: &str, bucket: &str| StoreArgs {
        store: Some(format!("s3://{bucket}/x")),
        static_credentials: Some(StaticCredentials {
            access_key_id: S3Server::ACCESS_KEY_ID.into(),
            secret_access_key: secret.into(),
        }),
        ..server.args("")
    };
    let error = store::open(&wrong("not the secret", S3Server::BUCKET)).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("AWS_SECRET_ACCESS_KEY"), "{error}");
    assert!(!error.to_string().contains("not the secret"), "{error}");

    let error =
        store::open(&wrong(S3Server::SECRET_ACCESS_KEY, "no-such-bucket")).await.unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
}

async fn a_lost_answer_is_resolved_by_reading_back(server: &S3Server) {
    let proxy = Proxy::start(server.port()).await.unwrap();
    let endpoint = Some(format!("http://127.0.0.1:{}", proxy.port()));
    let args = StoreArgs { s3_endpoint: endpoint, ..server.args("lost") };
    let through = store::open(&args).await.unwrap();
    proxy.set(Fault::DropAnswers);
    let bytes = Bytes::from("committed, but nobody heard");
    let lost = create_if_absent(through.as_ref(), "k", bytes.clone()).await;
    assert!(lost.is_err(), "no answer came, yet there is an outcome: {lost:?}");
    proxy.set(Fault::None);
    let direct = store::open(&server.args("lost")).await.unwrap();
    assert_eq!(store::read(direct.as_ref(), "k").await.unwrap().as_ref(), Some(&bytes));
    assert_eq!(create_if_absent(through.as_ref(), "k", bytes).await.unwrap(), Created::Ours);
    let other = create_if_absent(through.as_ref(), "k", Bytes::from("late")).await.unwrap();
    assert_eq!(other, Created::AlreadyThere);
}

async fn an_outage_ends_in_an_error_and_not_in_a_wait(server: &mut S3Server) {
    let open = store::open(&server.args("outage")).await.unwrap();
    server.kill();
    let started = Instant::now();
    let error = create_if_absent(open.as_ref(), "k", Bytes::from("1")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    assert!(error.is_transient());
    // As the user wrote it, and nothing of what opens it.
    let address = format!("no answer from the object store s3://{}/outage:", S3Server::BUCKET);
    assert!(error.to_string().contains(&address), "{error}");
    assert!(!format!("{error} {open:?}").contains(S3Server::SECRET_ACCESS_KEY), "{error}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_wrong_endpoint_shows_within_seconds() {
    let [port] = free_ports();
    let args = StoreArgs {
        store: Some("s3://results".into()),
        s3_endpoint: Some(format!("http://127.0.0.1:{port}")),
        s3_region: None,
        static_credentials: Some(StaticCredentials {
            access_key_id: "k".into(),
            secret_access_key: "s".into(),
        }),
    };
    let started = Instant::now();
    let error = store::open(&args).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("AWS_ENDPOINT_URL"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_bad_url_is_refused_with_what_was_expected() {
    for (url, expected) in [
        ("", "BAKEOFF_STORE"),
        ("gs://bucket", "unknown scheme `gs`"),
        ("s3:///prefix", "bucket is missing"),
        ("s3:/bucket", "expected s3://bucket[/prefix]"),
        ("file://relative", "file:///absolute"),
        ("/dev/null/x", "cannot be used as a store"),
    ] {
        let args = StoreArgs { store: Some(url.into()), ..StoreArgs::default() };
        let error = store::open(&args).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{url}: {error}");
    }
}
