//! The models of the default sweep, whose configurations are inside the program: their sizes are
//! known without a network.

use crate::ModelShape;

/// A model of the hub with its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownModel {
    /// `owner/name` on the hub.
    pub id: &'static str,
    /// The commit that `deploy/sweeps/qwen-codegen.toml` pins.
    pub revision: &'static str,
    /// Its `config.json`, as `deploy/models` has it.
    pub config_json: &'static str,
}

impl KnownModel {
    /// The model's sizes.
    ///
    /// # Panics
    /// Never: a test parses every configuration here.
    pub fn shape(&self) -> ModelShape {
        ModelShape::from_config_json(self.config_json.as_bytes())
            .expect("a test parses every known configuration")
    }
}

/// The five models of the default sweep, in its order.
pub const KNOWN_MODELS: [KnownModel; 5] = [
    KnownModel {
        id: "Qwen/Qwen2.5-Coder-7B-Instruct",
        revision: "c03e6d358207e414f1eca0bb1891e29f1db0e242",
        config_json: include_str!("../../../deploy/models/Qwen2.5-Coder-7B-Instruct.json"),
    },
    KnownModel {
        id: "Qwen/Qwen2.5-Coder-32B-Instruct",
        revision: "381fc969f78efac66bc87ff7ddeadb7e73c218a7",
        config_json: include_str!("../../../deploy/models/Qwen2.5-Coder-32B-Instruct.json"),
    },
    KnownModel {
        id: "Qwen/Qwen3-32B",
        revision: "9216db5781bf21249d130ec9da846c4624c16137",
        config_json: include_str!("../../../deploy/models/Qwen3-32B.json"),
    },
    KnownModel {
        id: "Qwen/Qwen3-30B-A3B",
        revision: "ad44e777bcd18fa416d9da3bd8f70d33ebb85d39",
        config_json: include_str!("../../../deploy/models/Qwen3-30B-A3B.json"),
    },
    KnownModel {
        id: "Qwen/Qwen3-Coder-30B-A3B-Instruct",
        revision: "b2cff646eb4bb1d68355c01b18ae02e7cf42d120",
        config_json: include_str!("../../../deploy/models/Qwen3-Coder-30B-A3B-Instruct.json"),
    },
];

/// The known model of a hub id.
pub fn find(id: &str) -> Option<&'static KnownModel> {
    KNOWN_MODELS.iter().find(|model| model.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configuration_parses_and_the_default_sweep_pins_these_commits() {
        let sweep = include_str!("../../../deploy/sweeps/qwen-codegen.toml");
        for model in KNOWN_MODELS {
            assert!(model.shape().parameters() > 7_000_000_000, "{}", model.id);
            let pinned = format!("id = \"{}\"\nrevision = \"{}\"", model.id, model.revision);
            assert!(sweep.contains(&pinned), "{pinned}");
            assert_eq!(find(model.id).map(|found| found.revision), Some(model.revision));
        }
        assert_eq!(find("x/y"), None);
    }
}
