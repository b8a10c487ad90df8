//! The template of a Job: a suspended CronJob of `k8s/base`, which never fires and holds what an
//! installation says of its pods: images, secrets, tolerations, labels.

use serde_json::Value;

/// What a Job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs a sweep.
    Coordinator,
    /// Fetches a sweep's models into the cache.
    Prefetch,
}

impl Role {
    /// The CronJob's name.
    pub fn template(self) -> &'static str {
        match self {
            Self::Coordinator => "bakeoff-coordinator",
            Self::Prefetch => "bakeoff-prefetch",
        }
    }

    /// The container's name in it.
    pub fn container(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Prefetch => "prefetch",
        }
    }

    fn built_in(self) -> &'static str {
        match self {
            Self::Coordinator => include_str!("../../../k8s/base/coordinator.yaml"),
            Self::Prefetch => include_str!("../../../k8s/base/prefetch.yaml"),
        }
    }
}

/// A Job's template and where it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// The CronJob's, where it names one.
    pub namespace: Option<String>,
    /// `spec.jobTemplate`: metadata and spec of a Job.
    pub job: Value,
}

/// Why manifests hold no template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("the template is neither YAML nor JSON")]
    Yaml(#[from] serde_saphyr::Error),
    #[error(
        "the template holds no CronJob {0}: give it what `kubectl kustomize OVERLAY` or \
         `kubectl -n NAMESPACE get cronjobs -o yaml` prints"
    )]
    Missing(&'static str),
    #[error("the CronJob {0} has no container {1} at spec.jobTemplate.spec.template.spec")]
    Container(&'static str, &'static str),
}

impl Template {
    /// The one in `k8s/base`.
    pub fn built_in(role: Role) -> Self {
        Self::find(role.built_in(), role).expect("a test reads both templates")
    }

    /// Looks for it in manifests: YAML documents or JSON, `List`s included.
    pub fn find(manifests: &str, role: Role) -> Result<Self, TemplateError> {
        // As kubectl reads them: 0440 is octal.
        let options = serde_saphyr::options! { legacy_octal_numbers: true };
        let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(manifests, options)?;
        let named = |object: &&Value| {
            object["kind"] == "CronJob" && object["metadata"]["name"] == role.template()
        };
        let found = documents
            .iter()
            .flat_map(|document| match document["items"].as_array() {
                Some(items) => items.iter().collect(),
                None => vec![document],
            })
            .find(named)
            .ok_or(TemplateError::Missing(role.template()))?;
        let template = Self {
            namespace: found["metadata"]["namespace"].as_str().map(str::to_owned),
            job: found["spec"]["jobTemplate"].clone(),
        };
        let containers = template.job["spec"]["template"]["spec"]["containers"].as_array();
        let has = containers.into_iter().flatten().any(|c| c["name"] == role.container());
        if !has {
            return Err(TemplateError::Container(role.template(), role.container()));
        }
        Ok(template)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_are_read() {
        for role in [Role::Coordinator, Role::Prefetch] {
            let template = Template::built_in(role);
            let pod = &template.job["spec"]["template"]["spec"];
            assert_eq!(pod["restartPolicy"], "Never");
        }
        let job = Template::built_in(Role::Coordinator).job;
        let volumes = job["spec"]["template"]["spec"]["volumes"].as_array().unwrap().clone();
        let modes: Vec<_> =
            volumes.iter().filter_map(|v| v["secret"]["defaultMode"].as_u64()).collect();
        assert_eq!(modes, [0o440, 0o440]);
    }

    #[test]
    fn a_list_and_several_documents_are_searched() {
        let job = Role::Prefetch.built_in();
        let several = format!("kind: Namespace\nmetadata: {{name: x}}\n---\n{job}");
        let template = Template::find(&several, Role::Prefetch).unwrap();
        assert_eq!(template, Template::built_in(Role::Prefetch));
        let one: Value = serde_saphyr::from_str(job).unwrap();
        let list = serde_json::json!({"kind": "List", "items": [{"kind": "CronJob"}, one]});
        assert!(Template::find(&list.to_string(), Role::Prefetch).is_ok());
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |text: &str| Template::find(text, Role::Prefetch).unwrap_err().to_string();
        assert!(error("kind: Pod").contains("no CronJob bakeoff-prefetch"));
        assert!(error("").contains("no CronJob bakeoff-prefetch"));
        assert!(error("a: [").contains("neither YAML nor JSON"));
        let renamed = Role::Prefetch.built_in().replace("name: prefetch", "name: other");
        assert!(error(&renamed).contains("no container prefetch"));
    }
}
