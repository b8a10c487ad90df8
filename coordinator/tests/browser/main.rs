//! The pages as a person meets them: the report and the review, in a real Chromium, fed by the real
//! program from a store on disk.

mod chromium;
#[path = "../common/mod.rs"]
mod common;
mod example;
mod report;
mod review;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use bakeoff_coordinator::plan::Plan;
use bakeoff_proto::Cell;
use bakeoff_transport::args::StoreArgs;
use bakeoff_transport::store;
use common::Made;
use object_store::ObjectStore;
use tempfile::TempDir;

/// A folder with a store in it, and the program run there.
struct Stage {
    folder: TempDir,
}

impl Stage {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Stores a sweep whose cells came out as `made` says by the model's name; `None` fails the
    /// cell.
    async fn store(&self, text: &str, made: impl Fn(&str, &Cell) -> Option<Made>) -> Plan {
        let place = Some(self.path().join("results").display().to_string());
        let args = StoreArgs { store: place, ..StoreArgs::default() };
        let objects: Arc<dyn ObjectStore> = store::open(&args).await.expect("a store");
        common::store_sweep(objects.as_ref(), text, made).await
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command
            .args(args)
            .current_dir(self.path())
            .env_clear()
            .env("HF_HUB_OFFLINE", "1")
            .env("BAKEOFF_STORE", self.path().join("results"));
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the coordinator starts")
    }

    /// Runs a command that must end well; exit code 3 tells of failed cells, and is well.
    fn must(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 3)), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn report(&self, sweep: &str) -> PathBuf {
        self.path().join("results").join(sweep).join("report.html")
    }

    /// Collects a sweep; the address of its report.
    fn collect(&self, sweep: &str) -> String {
        self.must(&["collect", sweep]);
        url(&self.report(sweep))
    }
}

fn url(file: &Path) -> String {
    format!("file://{}", file.display())
}

/// Outputs that try to run, to leave the page, or to break out of what they are shown in.
fn hostile() -> String {
    let mut attacks = String::from(
        "<script>window.ran = 1</script><img src=x onerror=\"window.ran=1\">\n\
         </pre></div></details></section></main></script><script>window.ran=1</script>\n\
         </style><style>body{display:none}</style></textarea></title>\n\
         <svg onload=window.ran=1><svg><script>window.ran=1</script></svg>\n\
         <a href=\"javascript:window.ran=1\">x</a> [x](javascript:window.ran=1) ![x](http://127.0.0.1:9/i.png)\n\
         <iframe src=\"http://127.0.0.1:9/f\"></iframe><link rel=stylesheet href=http://127.0.0.1:9/s.css>\n\
         <meta http-equiv=refresh content=\"0;url=http://127.0.0.1:9/\"><base href=http://127.0.0.1:9/>\n\
         <form action=http://127.0.0.1:9/><input name=q autofocus onfocus=window.ran=1></form>\n\
         <details open ontoggle=window.ran=1> {{ 7 * 7 }} {% raw %} ${window.ran=1} --> ]]> \u{202e}\u{0}\n\n",
    );
    attacks.push_str(
        "```python\nx = \"</pre><script>window.ran=1</script>\"  # <img src=x onerror=window.ran=1>\n\
         y = '''<svg onload=window.ran=1>\n</i></pre><script>window.ran=1</script>'''\n```\n",
    );
    attacks.push_str(&"<b onmouseover=window.ran=1>&amp;".repeat(200_000 / 32));
    attacks
}

/// What must not be in a page that shows `hostile` outputs, as an expression that lists it.
const FOREIGN: &str = "[...document.querySelectorAll('iframe,img,object,embed,link[rel=stylesheet]:not([href=\"/page.css\"]),base,form,input[name=q],meta[http-equiv=refresh],a[href^=\"javascript:\" i]')]\
    .concat([...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => a.name.startsWith('on'))))\
    .map(e => e.outerHTML.slice(0, 200))";
