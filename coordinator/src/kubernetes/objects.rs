//! The objects of a sweep, from a Job's template.

use serde_json::{Map, Value, json};

use super::bundle::Bundle;
use super::template::{Role, Template};

/// Where the sweep's files are in the pod.
const FOLDER: &str = "/etc/bakeoff/sweep";
/// A registry that can never be reached (RFC 2606): the manifests' images until you name yours.
const PLACEHOLDER: &str = "registry.invalid/";

/// The Job's image is still the manifests' placeholder.
#[derive(Debug, thiserror::Error)]
#[error(
    "the Job's image is {0}, which stands for one of your registry: name it with --image, or give \
     --template the manifests of your installation"
)]
pub struct NoImage(pub String);

/// What an object is called, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub namespace: String,
}

impl Identity {
    /// Labels by which all objects of a sweep are found, and which say what they belong to.
    fn label(&self, metadata: &mut Value) {
        let labels = member(metadata, "labels");
        labels.insert("app.kubernetes.io/part-of".to_owned(), "bakeoff".into());
        labels.insert("app.kubernetes.io/instance".to_owned(), self.name.clone().into());
    }
}

/// The files of a sweep. It never changes: another sweep has another name.
pub fn config_map(identity: &Identity, bundle: &Bundle) -> Value {
    let data: Map<String, Value> =
        bundle.files().iter().map(|file| (file.key.clone(), file.text.clone().into())).collect();
    let mut metadata = json!({"name": identity.name, "namespace": identity.namespace});
    identity.label(&mut metadata);
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
        "immutable": true, "data": data,
    })
}

/// The Job that runs the sweep of the [`config_map`] of the same name; `options` stand before its path.
pub fn run_job(
    template: Template,
    identity: &Identity,
    image: Option<&str>,
    options: &[String],
    bundle: &Bundle,
) -> Result<Value, NoImage> {
    let mut args = vec!["run".to_owned()];
    args.extend_from_slice(options);
    args.push(format!("{FOLDER}/{}", bundle.sweep()));
    let mut job = job(template, Role::Coordinator, identity, image, &args)?;
    let pod = &mut job["spec"]["template"]["spec"];
    let items: Vec<_> =
        bundle.files().iter().map(|file| json!({"key": file.key, "path": file.path})).collect();
    push(
        pod,
        "volumes",
        json!({
            "name": "sweep", "configMap": {"name": identity.name, "items": items},
        }),
    );
    let container = container(pod, Role::Coordinator);
    let mount = json!({"name": "sweep", "mountPath": FOLDER, "readOnly": true});
    push(container, "volumeMounts", mount);
    Ok(job)
}

/// The Job that fetches `models`, each as `ID@REVISION`.
pub fn fetch_job(
    template: Template,
    identity: &Identity,
    image: Option<&str>,
    models: &[String],
) -> Result<Value, NoImage> {
    let mut args = vec!["fetch".to_owned()];
    args.extend_from_slice(models);
    job(template, Role::Prefetch, identity, image, &args)
}

fn job(
    template: Template,
    role: Role,
    identity: &Identity,
    image: Option<&str>,
    args: &[String],
) -> Result<Value, NoImage> {
    let mut spec = template.job["spec"].clone();
    let mut metadata = json!({"name": identity.name, "namespace": identity.namespace});
    for key in ["labels", "annotations"] {
        if let Some(value) = template.job["metadata"].get(key) {
            metadata[key] = value.clone();
        }
    }
    identity.label(&mut metadata);
    identity.label(&mut spec["template"]["metadata"]);
    let container = container(&mut spec["template"]["spec"], role);
    if let Some(image) = image {
        container["image"] = image.into();
    }
    if let Some(image) = container["image"].as_str().filter(|text| text.starts_with(PLACEHOLDER)) {
        return Err(NoImage(image.to_owned()));
    }
    container["args"] = args.into();
    Ok(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}))
}

fn container(pod: &mut Value, role: Role) -> &mut Value {
    let containers = pod["containers"].as_array_mut();
    let found = containers.and_then(|all| all.iter_mut().find(|c| c["name"] == role.container()));
    found.expect("Template::find has seen the container")
}

/// The object below `key`, made if it is not there.
fn member<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !value[key].is_object() {
        value[key] = json!({});
    }
    value[key].as_object_mut().expect("it was made an object")
}

fn push(value: &mut Value, key: &str, item: Value) {
    if !value[key].is_array() {
        value[key] = json!([]);
    }
    value[key].as_array_mut().expect("it was made an array").push(item);
}

/// The objects as `kubectl create -f -` reads them.
pub fn print(objects: &[Value]) -> Result<String, serde_saphyr::SerializeError> {
    // Long lines stay whole: folded ones are hard to search.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    serde_saphyr::to_string_multiple_with_options(objects, options)
}
