//! The evidence of each output as comments for `reviews.toml`.

use std::collections::BTreeMap;

use crate::report::Report;
use crate::review::blind;

/// Lines of evidence by blinded name.
pub fn by_output(seed: u64, report: &Report) -> BTreeMap<String, Vec<String>> {
    report
        .cells
        .iter()
        .filter_map(|cell| {
            let analysis = cell.analysis.as_ref()?;
            let mut lines = vec![format!("prompt {}", cell.prompt)];
            if analysis.complete {
                lines.push("complete".to_owned());
            } else {
                lines.push(format!("not complete: {}", analysis.incomplete_because.join("; ")));
            }
            if let Some(parses) = analysis.parses {
                lines.push(if parses { "parses" } else { "does not parse" }.to_owned());
            }
            for finding in &analysis.findings {
                let lines_found: Vec<_> =
                    finding.evidence.iter().map(|e| e.line.to_string()).collect();
                lines.push(match lines_found.as_slice() {
                    [] => format!("{}: no evidence", finding.item),
                    found => format!("{}: line {}", finding.item, found.join(", ")),
                });
            }
            Some((blind::name(seed, &cell.cell), lines))
        })
        .collect()
}
