//! `coordinator export`: copy a sweep out of the store.

use std::path::{Path, PathBuf};

use bakeoff_proto::SweepName;
use clap::Args;

use super::shared;
use crate::collect::read;
use crate::connect::StoreOnly;
use crate::error::Error;
use bakeoff_proto::exit::Exit;

/// Copy all files of a sweep into a folder
///
/// A file that is there already with other contents is not overwritten, unless --force says so.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  coordinator export my-sweep ./my-sweep --store s3://results")]
pub struct ExportArgs {
    /// The sweep's name
    name: SweepName,
    /// Folder to copy into; made if need be
    dir: PathBuf,
    #[command(flatten)]
    connect: StoreOnly,
    /// Overwrite files that differ
    #[arg(long)]
    force: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn execute(args: ExportArgs) -> Result<Exit, Error> {
    let store = args.connect.store().await?;
    // Also the check that there is such a sweep.
    read::plan(store.objects.as_ref(), &args.name).await?;
    let keys = read::list(store.objects.as_ref(), args.name.as_str()).await?;
    let folder = format!("{}/", args.name);
    let mut files = 0;
    for key in &keys {
        let Some(relative) = key.strip_prefix(&folder) else { continue };
        let Some(bytes) = bakeoff_transport::store::read(store.objects.as_ref(), key).await? else {
            continue;
        };
        write(&args.dir.join(relative), &bytes, args.force)?;
        files += 1;
    }
    if args.json {
        let summary = serde_json::json!({"sweep": args.name, "files": files, "dir": args.dir});
        shared::print_json(&summary)?;
    } else {
        println!("{} copied to {}", shared::count(files, "file", "files"), args.dir.display());
    }
    Ok(Exit::Success)
}

fn write(path: &Path, bytes: &[u8], force: bool) -> Result<(), Error> {
    match std::fs::read(path) {
        Ok(present) if present == bytes => return Ok(()),
        Ok(_) if !force => {
            return Err(Error::Input(format!(
                "{} is there with other contents: export to an empty folder, or overwrite with \
                --force",
                path.display()
            )));
        }
        Ok(_) | Err(_) => {}
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|source| {
            let what = format!("cannot make folder {}", parent.display());
            Error::Local { what, source }
        })?;
    }
    std::fs::write(path, bytes).map_err(|source| {
        let what = format!("cannot write {}", path.display());
        Error::Local { what, source }
    })
}
