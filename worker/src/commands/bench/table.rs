//! Rows as a table for people.

use super::measure::Row;

const HEADER: [&str; 12] = [
    "model",
    "engine",
    "prompt",
    "depth",
    "decode tok/s",
    "sd",
    "% of bound",
    "TTFT ms",
    "prefill tok/s",
    "% of cuBLAS",
    "load s",
    "load GB/s",
];

/// One row, for progress.
pub fn line(row: &Row) -> String {
    cells(row).join("  ")
}

/// Markdown, columns aligned.
pub fn render(rows: &[Row]) -> String {
    let mut lines: Vec<[String; 12]> = vec![HEADER.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADER.len()).map(width).collect();
    let mut out = String::new();
    for (at, line) in lines.iter().enumerate() {
        let padded: Vec<String> = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(column, (cell, width))| {
                    if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        out.push_str(&format!("| {} |\n", padded.join(" | ")));
        if at == 0 {
            let rules: Vec<String> = widths
                .iter()
                .enumerate()
                .map(|(column, width)| {
                    let rule = "-".repeat(*width - 1);
                    if column < 2 { format!("{rule}-") } else { format!("{rule}:") }
                })
                .collect();
            out.push_str(&format!("| {} |\n", rules.join(" | ")));
        }
    }
    out
}

fn cells(row: &Row) -> [String; 12] {
    let share = row.prefill_gemm_pct.map_or_else(|| "n/a".to_owned(), |pct| format!("{pct:.1}"));
    [
        row.model.clone(),
        if row.sampling == "sample" {
            format!("{}, sampling", row.engine)
        } else {
            row.engine.clone()
        },
        row.prompt_tokens.to_string(),
        row.depth.to_string(),
        format!("{:.1}", row.decode_tok_s),
        format!("{:.1}", row.decode_tok_s_sd),
        format!("{:.1}", row.roofline_pct),
        format!("{:.2}", row.ttft_ms),
        format!("{:.0}", row.prefill_tok_s),
        share,
        format!("{:.2}", row.load_s),
        format!("{:.1}", row.load_gb_s),
    ]
}
