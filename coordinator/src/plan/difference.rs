//! What differs between the stored plan of a name and another one, in the sweep's own words.

use serde_json::Value;

use super::Plan;
use crate::toml_file::words::shorten;

/// At most this many differences are listed.
const LISTED: usize = 5;

/// One sentence per difference; empty if the plans are the same.
pub fn differences(stored: &Plan, new: &Plan) -> Vec<String> {
    if stored.plans_the_same(new) {
        return Vec::new();
    }
    let mut found = Vec::new();
    walk("", &json(&stored.sweep), &json(&new.sweep), &mut found);
    walk("revision", &json(&stored.revisions), &json(&new.revisions), &mut found);
    if found.is_empty() {
        found.push(
            "the sweeps are the same, but this version plans them into other jobs".to_owned(),
        );
    }
    let more = found.len().saturating_sub(LISTED);
    found.truncate(LISTED);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    found
}

fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("a plan serialises to JSON")
}

fn walk(path: &str, stored: &Value, new: &Value, found: &mut Vec<String>) {
    if stored == new {
        return;
    }
    match (stored, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            for key in keys {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let absent = Value::Null;
                walk(&inner, a.get(key).unwrap_or(&absent), b.get(key).unwrap_or(&absent), found);
            }
        }
        (Value::Array(a), Value::Array(b)) => walk_list(path, a, b, found),
        (Value::Null, _) => found.push(format!("{path}: not there before, now {}", brief(new))),
        (_, Value::Null) => found.push(format!("{path}: was {}, not there now", brief(stored))),
        (Value::String(a), Value::String(b))
            if a.chars().count() > 60 || b.chars().count() > 60 =>
        {
            let at = a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count();
            found.push(format!("{path}: the texts differ from character {} on", at + 1));
        }
        _ => found.push(format!("{path}: was {}, now {}", brief(stored), brief(new))),
    }
}

/// Entries are matched by name or id where they have one, else by position.
fn walk_list(path: &str, stored: &[Value], new: &[Value], found: &mut Vec<String>) {
    let label = |value: &Value, index: usize| {
        let name = ["name", "id", "engine"].iter().find_map(|key| value.get(key)?.as_str());
        name.map_or_else(|| (index + 1).to_string(), str::to_owned)
    };
    let find = |list: &[Value], wanted: &str| {
        list.iter().enumerate().find(|(i, v)| label(v, *i) == wanted).map(|(_, v)| v.clone())
    };
    let before = found.len();
    for (index, old) in stored.iter().enumerate() {
        let name = label(old, index);
        match find(new, &name) {
            Some(value) => walk(&format!("{path}[{name}]"), old, &value, found),
            None => found.push(format!("{path}[{name}]: not there now")),
        }
    }
    for (index, value) in new.iter().enumerate() {
        let name = label(value, index);
        if find(stored, &name).is_none() {
            found.push(format!("{path}[{name}]: not there before"));
        }
    }
    if found.len() == before {
        found.push(format!("{path}: another order"));
    }
}

fn brief(value: &Value) -> String {
    shorten(&value.to_string())
}
