//! The hashes that identities are made of.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// SHA-256 as 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first 16 digits of the SHA-256 of a value's canonical JSON (object keys sorted, no spaces).
///
/// Two values have the same identity exactly when they say the same thing, whatever order their
/// fields were written in.
pub fn identity(value: &impl Serialize) -> String {
    let json = serde_json::to_value(value).expect("the types of this crate serialise to JSON");
    let mut hex = sha256_hex(canonical(&json).as_bytes());
    hex.truncate(16);
    hex
}

fn canonical(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let inner: Vec<_> = entries
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", inner.join(","))
        }
        Value::Array(items) => {
            let inner: Vec<_> = items.iter().map(canonical).collect();
            format!("[{}]", inner.join(","))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_fields_does_not_change_an_identity() {
        let one = json!({"a": 1, "b": {"c": [1, 2], "d": "x"}});
        let other = json!({"b": {"d": "x", "c": [1, 2]}, "a": 1});
        assert_eq!(identity(&one), identity(&other));
        assert_ne!(identity(&one), identity(&json!({"a": 1, "b": {"c": [2, 1], "d": "x"}})));
    }

    #[test]
    fn sha256_matches_the_published_vector() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
