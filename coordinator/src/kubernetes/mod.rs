//! A sweep as Kubernetes objects: a ConfigMap with its files and the Job that runs it, or the Job that
//! fetches its models.
//!
//! Layout:
//! - [`names`]: what the objects are called
//! - [`bundle`]: the sweep's files, laid out as they lie on the disk
//! - [`template`]: the Job's template: the one in `k8s/base`, or an installation's own
//! - [`objects`]: both together

pub mod bundle;
pub mod names;
pub mod objects;
pub mod template;
