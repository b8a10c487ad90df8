//! One trace a job, across the queue: the publisher's span travels in the message's headers, as W3C's
//! `traceparent`, and the worker's spans hang below it.

/// Headers that carry the current span; none when nothing is traced.
#[cfg(feature = "otlp")]
pub(crate) fn headers() -> Vec<(String, String)> {
    use opentelemetry::propagation::TextMapPropagator;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    let mut carried = std::collections::HashMap::new();
    let context = tracing::Span::current().context();
    TraceContextPropagator::new().inject_context(&context, &mut carried);
    carried.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// Makes `span` a child of the one whose headers came with a message. To be called before the span
/// is entered. Headers without a trace, or none that is valid, leave it as it is.
#[cfg(feature = "otlp")]
pub fn continue_trace(span: &tracing::Span, headers: &[(String, String)]) {
    use opentelemetry::propagation::TextMapPropagator;
    use opentelemetry::trace::TraceContextExt;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    let carried: std::collections::HashMap<String, String> =
        headers.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
    let context = TraceContextPropagator::new().extract(&carried);
    if context.span().span_context().is_valid() {
        // An error only says that this process sends no traces.
        let _ = span.set_parent(context);
    }
}

#[cfg(not(feature = "otlp"))]
pub(crate) fn headers() -> Vec<(String, String)> {
    Vec::new()
}

/// Does nothing: this program was built without traces.
#[cfg(not(feature = "otlp"))]
pub fn continue_trace(_span: &tracing::Span, _headers: &[(String, String)]) {}
