//! A line of text names each field of its spans once. Every span of a job holds sweep, job and attempt,
//! so that a trace or a JSON line can be searched by them; people would read them over and over.

use std::error::Error;
use std::fmt::Debug;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::FormattedFields;
use tracing_subscriber::fmt::format::{DefaultFields, DefaultVisitor};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Takes out of a new span's text the fields that an outer span has. Belongs after the layer that
/// writes lines; JSON is none of its business.
pub(super) struct Once;

impl<S> Layer<S> for Once
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let outer: Vec<_> = span.scope().skip(1).map(|outer| outer.metadata()).collect();
        let mut extensions = span.extensions_mut();
        let Some(text) = extensions.get_mut::<FormattedFields<DefaultFields>>() else { return };
        text.fields.clear();
        let inner = DefaultVisitor::new(text.as_writer(), true);
        attributes.record(&mut Unsaid { outer, inner });
    }
}

struct Unsaid<'a> {
    outer: Vec<&'static Metadata<'static>>,
    inner: DefaultVisitor<'a>,
}

impl Unsaid<'_> {
    fn is_new(&self, field: &Field) -> bool {
        self.outer.iter().all(|span| span.fields().field(field.name()).is_none())
    }
}

impl Visit for Unsaid<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if self.is_new(field) {
            self.inner.record_str(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        if self.is_new(field) {
            self.inner.record_error(field, value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.is_new(field) {
            self.inner.record_debug(field, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_of_a_stage_tells_sweep_job_and_attempt_once() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = fmt::layer().without_time().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_ansi(false)).with(Once);
        tracing::subscriber::with_default(subscriber, || {
            let attempt = tracing::field::Empty;
            let job = tracing::info_span!("job", sweep = %"s", job = %"j", generation = 1, attempt);
            job.record("attempt", "a");
            let _job = job.entered();
            tracing::info!("claimed");
            let stage =
                tracing::info_span!("generate", sweep = %"s", job = %"j", attempt = "a", cell = %7);
            let _stage = stage.entered();
            tracing::info!("done");
        });
        let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let mut said = said.lines();
        let job = r#"job{sweep=s job=j generation=1 attempt="a"}"#;
        let target = module_path!();
        assert_eq!(said.next(), Some(&*format!(" INFO {job}: {target}: claimed")));
        assert_eq!(said.next(), Some(&*format!(" INFO {job}:generate{{cell=7}}: {target}: done")));
        assert_eq!(said.next(), None);
    }
}
