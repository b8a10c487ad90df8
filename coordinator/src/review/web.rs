//! The local page: one output at a time beside its evidence. Saves at once, so that closing the
//! page, or the machine, loses nothing.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, put};
use serde_json::{Value, json};

use super::{CRITERIA, Readiness, Review, Reviews, blind, file, notes};
use crate::collect::Collected;
use crate::quality::highlight::escape;
use crate::report::model::{CellFacts, Report};
use crate::report::{self, output_html};

const PAGE: &str = include_str!("page.html");
/// A review is a few hundred bytes; nothing larger is read.
const MAX_BODY: usize = 64 * 1024;

/// What the page serves and where it saves.
pub struct Page {
    collected: Arc<Collected>,
    report: Report,
    reviews: Mutex<Reviews>,
    reviewer: String,
    path: PathBuf,
    address: SocketAddr,
}

impl Page {
    pub fn new(
        collected: Arc<Collected>,
        reviews: Reviews,
        reviewer: String,
        path: PathBuf,
        address: SocketAddr,
    ) -> Self {
        let report = report::build(&collected, &[]);
        let reviewer = reviewer.trim().to_owned();
        Self { collected, report, reviews: Mutex::new(reviews), reviewer, path, address }
    }

    /// Serves until `stop` is done.
    pub async fn serve(
        self,
        listener: tokio::net::TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), std::io::Error> {
        let page = Arc::new(self);
        let app = axum::Router::new()
            .route("/", get(index))
            .route("/api/outputs", get(list))
            .route("/api/outputs/{name}", get(output))
            .route("/api/reviews/{name}", put(review))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(middleware::from_fn_with_state(Arc::clone(&page), guard))
            .with_state(page);
        axum::serve(listener, app).with_graceful_shutdown(stop).await
    }

    fn reviews(&self) -> std::sync::MutexGuard<'_, Reviews> {
        // A panic while holding the lock cannot leave a half-written review: they are replaced whole.
        self.reviews.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn cell(&self, seed: u64, name: &str) -> Option<&CellFacts> {
        self.report.cells.iter().find(|cell| blind::name(seed, &cell.cell) == name)
    }
}

/// Only requests to this very address: another site's name that resolves here is turned away.
async fn guard(State(page): State<Arc<Page>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let port = page.address.port();
    let known = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    if !host.is_some_and(|host| known.iter().any(|name| name == host)) {
        return (StatusCode::FORBIDDEN, "this page answers on its own address only")
            .into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let value = |text: &'static str| axum::http::HeaderValue::from_static(text);
    headers.insert(header::CACHE_CONTROL, value("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, value("nosniff"));
    headers.insert(header::REFERRER_POLICY, value("no-referrer"));
    response
}

async fn index(State(page): State<Arc<Page>>) -> Html<String> {
    let criteria: String = CRITERIA
        .iter()
        .map(|(id, question)| format!("<div class=\"crit\" data-id=\"{id}\"><div><b>{id}</b><small>{}</small></div><div class=\"stars\" role=\"radiogroup\" aria-label=\"{id}\"></div></div>", escape(question)))
        .collect();
    let readiness: String = Readiness::ALL
        .iter()
        .map(|(word, _)| {
            format!(
                "<label><input type=\"radio\" name=\"readiness\" value=\"{word}\"> {word}</label>"
            )
        })
        .collect();
    let html = PAGE
        .replace("/*STYLE*/", report::STYLE)
        .replace("<!--CRITERIA-->", &criteria)
        .replace("<!--READINESS-->", &readiness)
        .replace("<!--SWEEP-->", &escape(&page.report.sweep))
        .replace("<!--REVIEWER-->", &escape(&page.reviewer));
    Html(html)
}

/// The outputs in blinded order, and which are reviewed.
async fn list(State(page): State<Arc<Page>>) -> Json<Value> {
    let reviews = page.reviews();
    let outputs: Vec<_> = blind::cells(reviews.seed, page.collected.outputs.keys())
        .into_keys()
        .map(|name| {
            let stars = mine(&reviews, &name, &page.reviewer).and_then(Review::mean_stars);
            json!({"name": name, "stars": stars})
        })
        .collect();
    Json(json!(outputs))
}

fn mine<'a>(reviews: &'a Reviews, output: &str, reviewer: &str) -> Option<&'a Review> {
    reviews.reviews.iter().find(|r| r.output == output && r.reviewer.eq_ignore_ascii_case(reviewer))
}

async fn output(State(page): State<Arc<Page>>, UrlPath(name): UrlPath<String>) -> Response {
    let reviews = page.reviews();
    let Some(cell) = page.cell(reviews.seed, &name) else { return unknown() };
    let Some(text) = page.collected.outputs.get(&cell.cell) else { return unknown() };
    let review = mine(&reviews, &name, &page.reviewer).cloned().unwrap_or_default();
    let prompt = page.report.prompts.iter().find(|prompt| prompt.id == cell.prompt);
    // The name is told once the review is complete, when it can sway nothing any more.
    let model = (review.stars.len() == CRITERIA.len()).then_some(&cell.variant);
    Json(json!({
        "name": name,
        "prompt": prompt.map(|prompt| &prompt.text),
        "items": prompt.map(|prompt| &prompt.items),
        "html": output_html(text, 400_000, true),
        "analysis": cell.analysis,
        "checks": cell.checks,
        "review": review,
        "model": model,
    }))
    .into_response()
}

fn unknown() -> Response {
    (StatusCode::NOT_FOUND, "there is no such output").into_response()
}

async fn review(
    State(page): State<Arc<Page>>,
    UrlPath(name): UrlPath<String>,
    Json(mut new): Json<Review>,
) -> Response {
    let mut reviews = page.reviews();
    let Some(cell) = page.cell(reviews.seed, &name) else { return unknown() };
    new.output = name.clone();
    new.reviewer = page.reviewer.clone();
    let mut changed = reviews.clone();
    match changed
        .reviews
        .iter_mut()
        .find(|r| r.output == name && r.reviewer.eq_ignore_ascii_case(&page.reviewer))
    {
        Some(old) => *old = new.clone(),
        None => changed.reviews.push(new.clone()),
    }
    let text = file::render(&changed, &notes(changed.seed, &page.collected));
    // What is saved must be readable: the same check that `--push` makes.
    if let Err(error) = super::parse(&text, "the review", &page.collected) {
        return (StatusCode::UNPROCESSABLE_ENTITY, error.message).into_response();
    }
    if let Some(unknown) = new.stars.keys().find(|key| !CRITERIA.iter().any(|(id, _)| id == key)) {
        let message = format!("there is no criterion \"{}\"", crate::sweep::shorten(unknown));
        return (StatusCode::UNPROCESSABLE_ENTITY, message).into_response();
    }
    if let Err(error) = save(&page.path, &text) {
        let message = format!("not saved: {}: {error}", page.path.display());
        return (StatusCode::INTERNAL_SERVER_ERROR, message).into_response();
    }
    *reviews = changed;
    let complete = new.stars.len() == CRITERIA.len();
    Json(json!({"saved": true, "stars": new.mean_stars(), "model": complete.then_some(&cell.variant)}))
        .into_response()
}

/// Writes beside the file and renames: at any moment the old or the new file is whole.
pub fn save(path: &Path, text: &str) -> Result<(), std::io::Error> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path)
}
