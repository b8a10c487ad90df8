//! The local page: one output at a time beside its evidence. Saves at once, so that closing the
//! page, or the machine, loses nothing.
//!
//! - `lines`: an output as the page shows it
//! - [`notes`]: its evidence as comments for `reviews.toml`

mod lines;
pub mod notes;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, put};
use serde_json::{Value, json};

use crate::collect::Collected;
use crate::quality::highlight::escape;
use crate::report;
use crate::report::model::{CellFacts, Report};
use crate::review::{self, CRITERIA, Readiness, Review, Reviews, blind, file};
use crate::toml_file::words::shorten;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Only the page's own script runs, whatever an output holds, and nothing is loaded from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";
/// A review is a few hundred bytes; nothing larger is read.
const MAX_BODY: usize = 64 * 1024;

/// What the page serves and where it saves.
pub struct Page {
    collected: Arc<Collected>,
    report: Report,
    /// The evidence of each output as comments for the file.
    notes: BTreeMap<String, Vec<String>>,
    reviews: Mutex<Reviews>,
    reviewer: String,
    path: PathBuf,
    address: SocketAddr,
}

impl Page {
    /// A page that saves to `path` and answers at `address` only.
    pub fn new(
        collected: Arc<Collected>,
        reviews: Reviews,
        reviewer: String,
        path: PathBuf,
        address: SocketAddr,
    ) -> Self {
        let report = report::build(&collected, &[]);
        let reviewer = reviewer.trim().to_owned();
        let notes = notes::by_output(reviews.seed, &report);
        Self { collected, report, notes, reviews: Mutex::new(reviews), reviewer, path, address }
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
            .route("/page.css", get(style))
            .route("/page.js", get(script))
            .route("/api/outputs", get(list))
            .route("/api/outputs/{name}", get(output))
            .route("/api/reviews/{name}", put(review))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(middleware::from_fn_with_state(Arc::clone(&page), guard))
            .with_state(page);
        axum::serve(listener, app).with_graceful_shutdown(stop).await
    }

    fn reviews(&self) -> std::sync::MutexGuard<'_, Reviews> {
        // A panic while holding the lock cannot leave a half-written review: they are replaced
        // whole.
        self.reviews.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn cell(&self, seed: u64, name: &str) -> Option<&CellFacts> {
        self.report.cells.iter().find(|cell| blind::name(seed, &cell.cell) == name)
    }
}

/// Only requests to this very address, by this very page: another site's name that resolves here
/// and another site's script are turned away.
async fn guard(State(page): State<Arc<Page>>, request: Request, next: Next) -> Response {
    let mut response = if is_ours(&page, request.headers()) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "this page answers to itself only").into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn is_ours(page: &Page, headers: &HeaderMap) -> bool {
    let port = page.address.port();
    let ours = |host: &str| {
        [format!("127.0.0.1:{port}"), format!("localhost:{port}")].iter().any(|own| own == host)
    };
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    // Browsers name the origin wherever another site could be behind a request.
    let origin = text(header::ORIGIN);
    text(header::HOST).is_some_and(ours)
        && origin.is_none_or(|origin| origin.strip_prefix("http://").is_some_and(ours))
}

async fn index(State(page): State<Arc<Page>>) -> Html<String> {
    let criteria: String = CRITERIA
        .iter()
        .map(|(id, question)| {
            format!(
                "<div class=\"criterion\" \
                data-id=\"{id}\"><div><b>{id}</b><small>{}</small></div><div class=\"stars\" \
                role=\"group\" aria-label=\"Stars for {id}\"></div></div>\n",
                escape(question)
            )
        })
        .collect();
    let readiness: String = Readiness::ALL
        .iter()
        .map(|(word, _)| {
            format!(
                "<label><input type=\"radio\" name=\"readiness\" value=\"{word}\"> {}</label>",
                word.replace('-', " ")
            )
        })
        .collect();
    let html = PAGE
        .replace("<!--CRITERIA-->", &criteria)
        .replace("<!--READINESS-->", &readiness)
        .replace("<!--SWEEP-->", &escape(&page.report.sweep))
        .replace("<!--REVIEWER-->", &escape(&page.reviewer));
    Html(html)
}

async fn style() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/css; charset=utf-8")],
        [report::render::html::STYLE, STYLE].concat(),
    )
}

async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT)
}

/// The outputs in blinded order, and for how many criteria each has stars.
async fn list(State(page): State<Arc<Page>>) -> Json<Value> {
    let reviews = page.reviews();
    let outputs: Vec<_> = blind::cells(reviews.seed, page.collected.outputs.keys())
        .into_keys()
        .map(|name| {
            let given = mine(&reviews, &name, &page.reviewer).map_or(0, |r| r.stars.len());
            json!({"name": name, "given": given})
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
    // The name is shown once the review is complete, when it can sway nothing any more.
    let model = (review.stars.len() == CRITERIA.len()).then_some(&cell.variant);
    Json(json!({
        "name": name,
        "prompt": prompt.map(|prompt| &prompt.text),
        "items": prompt.map(|prompt| &prompt.items),
        "lines": lines::of(text),
        "analysis": cell.analysis,
        "checks": cell.checks,
        "review": review,
        "model": model,
    }))
    .into_response()
}

fn unknown() -> Response {
    (StatusCode::NOT_FOUND, "unknown output").into_response()
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
    let text = file::render(&changed, &page.notes);
    // What is saved must be readable: the same check that `--push` makes.
    if let Err(error) = review::parse(&text, "the review", &page.collected) {
        return (StatusCode::UNPROCESSABLE_ENTITY, error.message()).into_response();
    }
    if let Some(unknown) = new.stars.keys().find(|key| !CRITERIA.iter().any(|(id, _)| id == key)) {
        let message = format!("unknown criterion \"{}\"", shorten(unknown));
        return (StatusCode::UNPROCESSABLE_ENTITY, message).into_response();
    }
    if let Err(error) = save(&page.path, &text) {
        let message = format!("not saved: {}: {error}", page.path.display());
        return (StatusCode::INTERNAL_SERVER_ERROR, message).into_response();
    }
    *reviews = changed;
    let complete = new.stars.len() == CRITERIA.len();
    let model = complete.then_some(&cell.variant);
    Json(json!({"given": new.stars.len(), "model": model})).into_response()
}

/// Writes beside the file and renames: at any moment the old or the new file is whole.
pub fn save(path: &Path, text: &str) -> Result<(), std::io::Error> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests;
