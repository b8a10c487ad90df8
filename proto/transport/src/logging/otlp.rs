//! Spans to an OpenTelemetry collector: OTLP over HTTP, protobuf. All settings are the standard
//! OTEL_* variables; nothing is sent unless one of them names an endpoint.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

/// Crates whose spans are sent: ours.
const TARGETS: &str = "bakeoff_";

/// Sends the last spans when dropped.
pub(super) struct Traces(SdkTracerProvider);

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            eprintln!("warning: the last spans could not be sent: {error}");
        }
    }
}

/// The layer that records spans, if an endpoint is named.
pub(super) fn start<S>(service: &'static str) -> Option<(Traces, impl Layer<S> + Send + Sync)>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.trim().is_empty());
    let named = set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let disabled =
        std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    if !named || disabled {
        return None;
    }
    let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build();
    let exporter = match exporter {
        Ok(exporter) => exporter,
        Err(error) => {
            eprintln!(
                "warning: no traces are sent: {error}; check OTEL_EXPORTER_OTLP_ENDPOINT, such as http://collector:4318"
            );
            return None;
        }
    };
    let mut resource = Resource::builder();
    if !set("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name(service);
    }
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource.build())
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("bakeoff"))
        .with_location(false)
        .with_threads(false)
        .with_filter(Targets::new().with_target(TARGETS, LevelFilter::INFO));
    Some((Traces(provider), layer))
}
