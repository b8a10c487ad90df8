//! The machine and the settings, each fact with the values that occurred.

use std::collections::BTreeSet;

use bakeoff_proto::MetricsRecord;

use crate::collect::Collected;
use crate::report::model::Fact;

pub fn facts(collected: &Collected) -> Vec<Fact> {
    type Of = fn(&MetricsRecord) -> String;
    let facts: [(&str, Of); 14] = [
        ("device", |r| r.fingerprint.device.clone()),
        ("driver", |r| r.fingerprint.driver.clone()),
        ("host CPU", |r| r.device.host_cpu.clone()),
        ("build", |r| r.fingerprint.build.clone()),
        ("engine", |r| r.resolved.engine.clone()),
        ("dtype", |r| r.fingerprint.dtype.clone()),
        ("flash attention", |r| r.fingerprint.flash_attn.clone()),
        ("TF32", |r| r.fingerprint.tf32.clone()),
        ("reduced-precision reduction", |r| r.fingerprint.reduced_precision_reduction.clone()),
        ("CUDA graph", |r| r.fingerprint.cuda_graph.clone()),
        ("temperature", |r| r.resolved.temperature.to_string()),
        ("top_p", |r| r.resolved.top_p.to_string()),
        ("max_new_tokens", |r| r.generation_settings.max_new_tokens.to_string()),
        ("read bandwidth, GB/s", |r| {
            r.metrics.read_bandwidth_gb_s.map_or_else(String::new, |b| format!("{b:.0}"))
        }),
    ];
    let target = collected.plan.sweep.report.target_gpu.iter();
    let target =
        target.map(|gpu| Fact { name: "target GPU".to_owned(), values: vec![gpu.clone()] });
    let measured = facts.into_iter().filter_map(|(name, of)| {
        let values: BTreeSet<String> =
            collected.records.values().map(of).filter(|v| !v.is_empty()).collect();
        let values: Vec<String> = values.into_iter().take(6).collect();
        (!values.is_empty()).then(|| Fact { name: name.to_owned(), values })
    });
    target.chain(measured).collect()
}
