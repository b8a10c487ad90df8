use super::*;
use crate::finished::notebook;

/// One request over a plain socket: status and body.
async fn request(address: SocketAddr, host: &str, head: &str, body: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let text = format!(
        "{head} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: \
        application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(text.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("it answers");
    let status = answer.get(9..12).and_then(|code| code.parse().ok()).expect("a status");
    (status, answer)
}

#[tokio::test]
async fn a_review_given_on_the_page_is_saved_and_reaches_the_matrix() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("reviews.toml");
    let mut collected = notebook();
    collected.reviews = None;
    let serve = |reviews: Reviews| {
        let (collected, path) = (Arc::new(collected.clone()), path.clone());
        async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let page = Page::new(collected, reviews, "Ana".into(), path, address);
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let server = tokio::spawn(page.serve(listener, async {
                let _ = stopped.await;
            }));
            (address, stop, server)
        }
    };
    let mut reviews = Reviews { sweep: "notebook".into(), seed: 7, reviews: Vec::new() };
    review::add_blanks(&mut reviews, &collected, "Ana");
    let cell = collected.rows[0].cell.clone();
    let name = blind::name(7, &cell);
    let (address, stop, server) = serve(reviews).await;
    let host = address.to_string();

    let (status, page) = request(address, &host, &format!("GET /api/outputs/{name}"), "").await;
    assert_eq!(status, 200);
    assert!(page.contains("\"model\":null") && !page.contains("Qwen2.5-Coder-7B"), "blinded");
    let put = format!("PUT /api/reviews/{name}");
    let full = "{\"stars\":{\"correctness\":4,\"completeness\":4,\"robustness\":4,\"readability\":4,\"operations\":4}}";
    let (status, answer) = request(address, &host, &put, full).await;
    assert_eq!(status, 200);
    assert!(answer.contains("Qwen2.5-Coder-7B"), "the name is shown once all stars are given");
    for bad in ["{\"stars\":{\"correctness\":6}}", "{\"stars\":{\"beauty\":3}}", "{"] {
        assert!(request(address, &host, &put, bad).await.0 >= 400, "{bad}");
    }
    assert_eq!(request(address, "evil.example", &put, full).await.0, 403);
    assert_eq!(request(address, &host, "PUT /api/reviews/nothing", full).await.0, 404);
    let _ = stop.send(());
    server.await.expect("no panic").expect("it served");

    // A restart goes on from the file, and the report takes it.
    let saved = std::fs::read_to_string(&path).expect("saved at once");
    let read = review::parse(&saved, "reviews.toml", &collected).expect("valid");
    let (address, stop, _server) = serve(read).await;
    let (_, list) = request(address, &address.to_string(), "GET /api/outputs", "").await;
    assert!(list.contains("\"given\":5"), "{list}");
    let _ = stop.send(());
    collected.reviews = Some(saved);
    let report = report::build(&collected, &[]);
    assert_eq!(report.variants[0].stars.map(|s| s.mean), Some(4.0));
}
