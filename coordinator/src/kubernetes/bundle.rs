//! A sweep's files as a ConfigMap holds them and a volume lays them out again, so that what the sweep
//! names beside itself is found in the pod as it is here.

use std::path::{Component, Path, PathBuf};

use crate::sweep::files;

/// What the API server takes: the values of a ConfigMap together.
const MAX_BYTES: usize = 1 << 20;

/// One file: its key in the ConfigMap, its path below the volume, its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub key: String,
    pub path: String,
    pub text: String,
}

/// A sweep and all that it names; the sweep comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle(Vec<File>);

/// Why a sweep cannot be carried into a cluster.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("{} cannot be read", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the sweep is not TOML")]
    Toml(#[from] toml::de::Error),
    #[error(
        "the sweep names {0} by an absolute path, which no pod has: name it relative to the sweep"
    )]
    Absolute(String),
    #[error(
        "the model folder {0} is relative to the sweep, and pods have a copy of the sweep alone: \
         name its absolute path on the workers' volume (such as /models/...), or a hub id"
    )]
    Model(String),
    #[error(
        "sweep and files are {bytes} bytes, a ConfigMap holds {max}; the largest is {largest}: \
         submit the sweep from your machine through the broker's service (k8s/README.md)",
        max = MAX_BYTES
    )]
    TooLarge { bytes: usize, largest: String },
}

impl Bundle {
    /// Reads the sweep at `sweep` and what it names.
    pub fn read(sweep: &Path) -> Result<Self, BundleError> {
        let text = read(sweep)?;
        let named = files::named(&text)?;
        if let Some(folder) = named.models.into_iter().find(|path| Path::new(path).is_relative()) {
            return Err(BundleError::Model(folder));
        }
        if let Some(file) = named.files.iter().find(|path| Path::new(path).is_absolute()) {
            return Err(BundleError::Absolute(file.clone()));
        }
        let folder = sweep.parent().unwrap_or(Path::new(""));
        // As many of the folder's own parents as the files climb: `../suites/a.jsonl` stays what it is.
        let climbs = named.files.iter().map(|name| climb(name)).max().unwrap_or(0);
        let inner = last_folders(folder, climbs);
        let mut bundle =
            vec![File { key: "sweep.toml".to_owned(), path: below(&inner, "sweep.toml"), text }];
        for (index, name) in named.files.into_iter().enumerate() {
            let text = read(&folder.join(&name))?;
            bundle.push(File { key: key(index + 1, &name), path: below(&inner, &name), text });
        }
        let bytes = bundle.iter().map(|file| file.text.len()).sum();
        match bundle.iter().max_by_key(|file| file.text.len()) {
            Some(file) if bytes > MAX_BYTES => {
                Err(BundleError::TooLarge { bytes, largest: file.path.clone() })
            }
            _ => Ok(Self(bundle)),
        }
    }

    pub fn files(&self) -> &[File] {
        &self.0
    }

    /// The sweep's own path below the volume.
    pub fn sweep(&self) -> &str {
        &self.0[0].path
    }
}

fn read(path: &Path) -> Result<String, BundleError> {
    std::fs::read_to_string(path)
        .map_err(|source| BundleError::Read { path: path.to_owned(), source })
}

/// How many folders above its own a relative path reaches.
fn climb(name: &str) -> usize {
    let (mut depth, mut highest) = (0_isize, 0);
    for part in Path::new(name).components() {
        match part {
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
        highest = highest.min(depth);
    }
    highest.unsigned_abs()
}

fn last_folders(folder: &Path, count: usize) -> PathBuf {
    let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let whole = normal(&whole);
    let names: Vec<_> = whole.components().collect();
    names[names.len().saturating_sub(count)..].iter().collect()
}

/// The path without `.` and `..`; what would climb out of it is dropped.
fn normal(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

fn below(inner: &Path, name: &str) -> String {
    normal(&inner.join(name)).to_string_lossy().into_owned()
}

/// A key of a ConfigMap takes letters, digits, `-`, `_` and `.`; the number keeps keys apart.
fn key(number: usize, name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let base = Path::new(name).file_name().unwrap_or_default().to_string_lossy();
    let base: String = base.chars().map(|c| if allowed(c) { c } else { '_' }).take(100).collect();
    format!("file-{number}-{base}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep;

    const SWEEP: &str = r#"
name = "files"
[checks]
test_file = "../tests/check it.py"
[[prompts]]
id = "a"
file = "prompts/a.txt"
[[prompts]]
id = "b"
suite = "../suites/tasks.jsonl"
rubric = "./rubric.toml"
[[models]]
id = "builtin:tiny-qwen2"
"#;

    fn write(path: PathBuf, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn sweep_with_files(folder: &Path) -> PathBuf {
        let task = r#"{"task_id": "t/1", "prompt": "def f():", "test": "x", "entry_point": "f"}"#;
        write(folder.join("sweeps/prompts/a.txt"), "Write a program.\n");
        write(folder.join("suites/tasks.jsonl"), task);
        write(folder.join("tests/check it.py"), "print(1)\n");
        let rubric = include_str!("../quality/rubrics/python-code.toml");
        write(folder.join("sweeps/rubric.toml"), rubric);
        write(folder.join("sweeps/files.toml"), SWEEP);
        folder.join("sweeps/files.toml")
    }

    #[test]
    fn laid_out_again_the_sweep_is_the_same() {
        let here = tempfile::tempdir().unwrap();
        let path = sweep_with_files(here.path());
        let bundle = Bundle::read(&path).unwrap();
        let paths: Vec<_> = bundle.files().iter().map(|file| file.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "sweeps/sweep.toml",
                "suites/tasks.jsonl",
                "tests/check it.py",
                "sweeps/rubric.toml",
                "sweeps/prompts/a.txt",
            ]
        );
        let there = tempfile::tempdir().unwrap();
        for file in bundle.files() {
            write(there.path().join(&file.path), &file.text);
            let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            assert!(file.key.chars().all(fine), "{}", file.key);
        }
        let again = sweep::load(&there.path().join(bundle.sweep())).unwrap();
        assert_eq!(again, sweep::load(&path).unwrap());
    }

    #[test]
    fn what_no_pod_would_find_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.toml");
        let refused = |text: String| {
            write(path.clone(), &text);
            Bundle::read(&path).unwrap_err().to_string()
        };
        let far = refused(SWEEP.replace("prompts/a.txt", "/etc/hostname"));
        assert!(far.contains("/etc/hostname by an absolute path"), "{far}");
        let model = refused(SWEEP.replace("id = \"builtin:tiny-qwen2\"", "path = \"my/model\""));
        assert!(model.contains("my/model is relative"), "{model}");
        let gone = refused(SWEEP.replace("../", ""));
        assert!(gone.contains("cannot be read"), "{gone}");
    }

    #[test]
    fn a_megabyte_is_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.toml");
        let text = "name = \"s\"\n[[prompts]]\nfile = \"p.txt\"\n";
        write(path.clone(), text);
        write(folder.path().join("p.txt"), &"x".repeat(MAX_BYTES - text.len()));
        Bundle::read(&path).unwrap();
        write(folder.path().join("p.txt"), &"x".repeat(MAX_BYTES - text.len() + 1));
        let error = Bundle::read(&path).unwrap_err().to_string();
        assert!(error.contains("1048577 bytes") && error.contains("largest is p.txt"), "{error}");
    }
}
