//! Lays out streams, consumers and buckets, or brings them to the settings asked for.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{ErrorCode, kv};
use bakeoff_proto::names;

use super::broker::{Broker, chain, jetstream_code};
use crate::queue::{QueueError, QueueSettings};

/// Live events kept of one job: enough for a late watcher to see where it is.
const EVENTS_PER_JOB: i64 = 64;
/// An attempt is of no use once its job has left every queue.
const ATTEMPTS_MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

pub(super) async fn prepare(
    broker: &Broker,
    settings: &QueueSettings,
    classes: &[String],
) -> Result<(), QueueError> {
    stream(broker, jobs(settings)).await?;
    stream(broker, events(settings)).await?;
    bucket(broker, names::ATTEMPTS_BUCKET, ATTEMPTS_MAX_AGE, settings).await?;
    bucket(broker, names::CONTROL_BUCKET, Duration::ZERO, settings).await?;
    for class in classes {
        consumer(broker, class, settings).await?;
    }
    Ok(())
}

fn jobs(settings: &QueueSettings) -> Config {
    Config {
        name: names::JOBS_STREAM.into(),
        subjects: vec![names::JOBS_SUBJECTS.into()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        num_replicas: settings.replicas,
        max_bytes: settings.max_bytes.unwrap_or(-1),
        // A job that is queued already is refused, however long ago it was published.
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        duplicate_window: settings.duplicate_window,
        ..Config::default()
    }
}

fn events(settings: &QueueSettings) -> Config {
    Config {
        name: names::EVENTS_STREAM.into(),
        subjects: vec![names::EVENTS_SUBJECTS.into()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: settings.replicas,
        max_age: settings.events_max_age,
        max_messages_per_subject: EVENTS_PER_JOB,
        duplicate_window: settings.events_max_age.min(Duration::from_secs(120)),
        ..Config::default()
    }
}

async fn stream(broker: &Broker, config: Config) -> Result<(), QueueError> {
    let operation = format!("creating the stream {}", config.name);
    let mark = format!(".{}", config.name);
    let create = broker.context.create_or_update_stream(config);
    broker
        .unless_denied(&operation, &mark, create)
        .await?
        .map(|_| ())
        .map_err(|error| broker.failed(&operation, &chain(&error)))
}

async fn bucket(
    broker: &Broker,
    name: &str,
    max_age: Duration,
    settings: &QueueSettings,
) -> Result<(), QueueError> {
    let operation = format!("creating the bucket {name}");
    let mark = format!("KV_{name}");
    let config = kv::Config {
        bucket: name.into(),
        history: 1,
        max_age,
        storage: StorageType::File,
        num_replicas: settings.replicas,
        ..kv::Config::default()
    };
    let create = broker.context.create_key_value(config.clone());
    match broker.unless_denied(&operation, &mark, create).await? {
        Ok(_) => return Ok(()),
        Err(error) if jetstream_code(&error) == Some(ErrorCode::STREAM_NAME_EXIST) => {}
        Err(error) => return Err(broker.failed(&operation, &chain(&error))),
    }
    let update = broker.context.update_key_value(config);
    broker
        .unless_denied(&operation, &mark, update)
        .await?
        .map(|_| ())
        .map_err(|error| broker.failed(&operation, &chain(&error)))
}

/// No `backoff` (it would replace `ack_wait`), no `inactive_threshold` (a queue without workers
/// must keep its consumer), deliveries without limit (attempts are counted at the claim).
async fn consumer(
    broker: &Broker,
    class: &str,
    settings: &QueueSettings,
) -> Result<(), QueueError> {
    let name = names::consumer_name(class);
    let operation = format!("creating the consumer {name}");
    let config = pull::Config {
        durable_name: Some(name.clone()),
        name: Some(name.clone()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: settings.ack_wait,
        max_deliver: -1,
        filter_subject: names::class_jobs_filter(class),
        max_ack_pending: settings.max_ack_pending,
        num_replicas: 0,
        ..pull::Config::default()
    };
    let create = broker.context.create_consumer_on_stream(config, names::JOBS_STREAM);
    broker
        .unless_denied(&operation, &name, create)
        .await?
        .map(|_| ())
        .map_err(|error| broker.failed(&operation, &chain(&error)))
}
