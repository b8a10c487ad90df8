//! `coordinator k8s-job`: a sweep as a Job, for `kubectl create -f -`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use bakeoff_model::ModelSource;
use bakeoff_proto::SweepName;
use clap::Args;
use serde_json::Value;

use super::shared;
use crate::error::Error;
use crate::kubernetes::bundle::Bundle;
use crate::kubernetes::names::{self, Suffix};
use crate::kubernetes::objects::{self, Identity};
use crate::kubernetes::template::{Role, Template};
use crate::plan::{Plan, Revisions};
use bakeoff_proto::exit::Exit;

/// Print a sweep as the Kubernetes Job that runs it
///
/// One Job a sweep, named after it, and a ConfigMap with its files. The sweep is checked before
/// anything is printed; nothing is sent anywhere. Image and all else of the Job come from --template.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl kustomize k8s/overlays/h100 > installed.yaml
  coordinator k8s-job sweep.toml --template installed.yaml --prefetch | kubectl create -f -
  coordinator k8s-job sweep.toml --template installed.yaml | kubectl create -f -
  kubectl -n bakeoff get cronjobs -o yaml | coordinator k8s-job sweep.toml --template - > job.yaml")]
pub struct K8sJobArgs {
    /// Sweep file (TOML)
    sweep: PathBuf,
    /// Take this name instead of the sweep's own
    #[arg(long = "as", value_name = "NAME")]
    rename: Option<SweepName>,
    /// Manifests with the Job's template, `-` for standard input [default: k8s/base as it was built in]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Image of the container [default: the template's]
    #[arg(long)]
    image: Option<String>,
    /// Namespace of the objects [default: the template's, or bakeoff]
    #[arg(long, value_parser = names::namespace)]
    namespace: Option<String>,
    /// Print the Job that fetches the sweep's models into the cache instead
    #[arg(long)]
    prefetch: bool,
    /// A further Job for a sweep that had one: its name ends in -SUFFIX, and it also takes up cells
    /// that failed or were cancelled
    #[arg(long, value_name = "SUFFIX", conflicts_with = "prefetch")]
    rerun: Option<Suffix>,
}

pub async fn execute(args: K8sJobArgs) -> Result<Exit, Error> {
    let objects = objects(&args).await?;
    let text = objects::print(&objects).map_err(|error| Error::Yaml(Box::new(error)))?;
    print!("{text}");
    Ok(Exit::Success)
}

async fn objects(args: &K8sJobArgs) -> Result<Vec<Value>, Error> {
    let sweep = shared::load_sweep(Some(&args.sweep), args.rename.as_ref())?;
    let role = if args.prefetch { Role::Prefetch } else { Role::Coordinator };
    let template = template(args.template.as_deref(), role)?;
    let namespace = args.namespace.clone().or_else(|| template.namespace.clone());
    let namespace = namespace.unwrap_or_else(|| "bakeoff".to_owned());
    let identity = |suffix: Option<&Suffix>| Identity {
        name: names::of_sweep(&sweep.name, suffix),
        namespace: namespace.clone(),
    };
    let image = args.image.as_deref();
    if args.prefetch {
        let (plan, notes) = shared::make_plan(sweep.clone(), None).await?;
        shared::warn(&notes);
        let models = hub_models(&plan);
        if models.is_empty() {
            return Err(Error::Input(format!(
                "{}: no model comes from the hub, so there is nothing to fetch",
                args.sweep.display()
            )));
        }
        let identity = identity(Some(&Suffix::fetch()));
        return Ok(vec![objects::fetch_job(template, &identity, image, &models)?]);
    }
    Plan::build(sweep.clone(), Revisions::default())?;
    let bundle = Bundle::read(&args.sweep)?;
    let mut options = Vec::new();
    if let Some(name) = &args.rename {
        options.extend(["--as".to_owned(), name.to_string()]);
    }
    if args.rerun.is_some() {
        options.push("--retry".to_owned());
    }
    // Each Job has files of its own, so that both are removed by one label.
    let identity = identity(args.rerun.as_ref());
    let files = objects::config_map(&identity, &bundle);
    let job = objects::run_job(template, &identity, image, &options, &bundle)?;
    Ok(vec![files, job])
}

fn template(path: Option<&Path>, role: Role) -> Result<Template, Error> {
    let Some(path) = path else { return Ok(Template::built_in(role)) };
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|source| Error::InputFile {
        what: format!("--template {} cannot be read", path.display()),
        source,
    })?;
    Template::find(&text, role).map_err(|source| Error::Template {
        path: path.display().to_string(),
        source: Box::new(source),
    })
}

/// What the plan takes from the hub, as `worker fetch` names it: each once, in the sweep's order.
fn hub_models(plan: &Plan) -> Vec<String> {
    let mut models = Vec::new();
    for planned in &plan.jobs {
        if let ModelSource::Hub { id, revision } = &planned.job.model.source {
            let model = format!("{id}@{revision}");
            if !models.contains(&model) {
                models.push(model);
            }
        }
    }
    models
}
