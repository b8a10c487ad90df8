//! `coordinator review`: a blinded review in a file or on a local page.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bakeoff_proto::{SweepName, names};
use clap::Args;

use crate::collect::{Collected, read};
use crate::connect::{OpenStore, StoreOnly};
use crate::error::Error;
use crate::review::{self, Reviews, push};
use crate::review_page::{self, notes};
use bakeoff_proto::exit::Exit;

/// Review the outputs of a sweep without knowing which model made them
///
/// Writes a reviews file to fill in, or opens a local page. --push stores it for the report.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator review my-sweep --store s3://results --web --reviewer Ana
  coordinator review my-sweep --store s3://results --push")]
pub struct ReviewArgs {
    /// The sweep's name
    name: SweepName,
    #[command(flatten)]
    connect: StoreOnly,
    /// The local file
    #[arg(long, default_value = "reviews.toml")]
    file: PathBuf,
    /// Names and order of the outputs follow from it
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    /// Who reviews
    #[arg(long, env = "BAKEOFF_REVIEWER", default_value = "reviewer")]
    reviewer: String,
    /// Serve a page on this machine, until Ctrl-C
    #[arg(long, conflicts_with = "push")]
    web: bool,
    /// Port of the page; 0 takes a free one
    #[arg(long, default_value_t = 0, requires = "web")]
    port: u16,
    /// Check the file and store it
    #[arg(long)]
    push: bool,
}

pub async fn execute(args: ReviewArgs) -> Result<Exit, Error> {
    let store = args.connect.store().await?;
    let collected = read::collect(store.objects.clone(), &args.name).await?;
    if collected.outputs.is_empty() {
        return Err(Error::Input(format!(
            "{} has no finished output yet: there is nothing to review",
            args.name
        )));
    }
    if args.push {
        return push_file(&args, &store, &collected).await;
    }
    let reviews = local(&args, &collected)?;
    write_file(&args.file, &reviews, &collected)?;
    let open = reviews.reviews.iter().filter(|r| r.is_blank()).count();
    let file = args.file.display();
    if !args.web {
        println!(
            "{open} outputs to review in {file}\nthen: coordinator review {} --push",
            args.name
        );
        return Ok(Exit::Success);
    }
    let listener =
        tokio::net::TcpListener::bind(("127.0.0.1", args.port)).await.map_err(|source| {
            let what = format!("cannot listen on 127.0.0.1:{}", args.port);
            Error::Local { what, source }
        })?;
    let address = listener.local_addr()?;
    println!("review at http://{address}/ (saved to {file} at once; Ctrl-C ends)");
    let page =
        review_page::Page::new(Arc::new(collected), reviews, args.reviewer, args.file, address);
    let stop = async {
        // Without a signal handler the process ends by the signal itself.
        let _ = tokio::signal::ctrl_c().await;
    };
    page.serve(listener, stop).await?;
    Ok(Exit::Success)
}

/// The local file if there is one, else what is stored, else blanks for this reviewer.
fn local(args: &ReviewArgs, collected: &Collected) -> Result<Reviews, Error> {
    let sweep = collected.plan.sweep.name.as_str();
    let mut reviews = match std::fs::read_to_string(&args.file) {
        Ok(text) => review::parse(&text, &args.file.display().to_string(), collected)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match &collected.reviews {
            Some(text) => review::parse(text, "reviews.toml in the store", collected)?,
            None => Reviews {
                sweep: sweep.to_owned(),
                seed: args.seed.unwrap_or_else(|| review::blind::default_seed(sweep)),
                reviews: Vec::new(),
            },
        },
        Err(source) => {
            let what = format!("cannot read {}", args.file.display());
            return Err(Error::Local { what, source });
        }
    };
    if let Some(seed) = args.seed.filter(|seed| *seed != reviews.seed) {
        return Err(Error::Input(format!(
            "--seed {seed} is not the seed of the reviews that exist ({}): leave it out, or name \
            another --file",
            reviews.seed
        )));
    }
    review::add_blanks(&mut reviews, collected, &args.reviewer);
    Ok(reviews)
}

fn write_file(path: &Path, reviews: &Reviews, collected: &Collected) -> Result<(), Error> {
    let report = crate::report::build(collected, &[]);
    let text = review::file::render(reviews, &notes::by_output(reviews.seed, &report));
    review_page::save(path, &text).map_err(|source| {
        let what = format!("cannot write {}", path.display());
        Error::Local { what, source }
    })
}

async fn push_file(
    args: &ReviewArgs,
    store: &OpenStore,
    collected: &Collected,
) -> Result<Exit, Error> {
    let origin = args.file.display().to_string();
    let text = std::fs::read_to_string(&args.file).map_err(|source| {
        let what =
            format!("cannot read {origin}; make it first with `coordinator review {}`", args.name);
        Error::InputFile { what, source }
    })?;
    let mine = review::parse(&text, &origin, collected)?;
    let key = names::reviews_key(&args.name);
    let pushed = push::push(store.objects.as_ref(), &key, &mine, collected).await?;
    println!(
        "{pushed} reviews stored in {}\nsee them with: coordinator collect {}",
        store.location(&key),
        args.name
    );
    Ok(Exit::Success)
}
