//! Environment variables that are nobody's option but everybody's convention: libraries read them, and
//! an operator expects them to work. Options name their own variables; together they are the whole list.

/// A variable and what it does.
pub type Variable = (&'static str, &'static str);

/// By whom they are read.
pub const STANDARD: &[(&str, &[Variable])] = &[
    (
        "Logs and traces",
        &[
            (
                "RUST_LOG",
                "What is logged, such as `debug` or `bakeoff_worker=trace,info` [default: `info` for the worker, `warn` for the coordinator]",
            ),
            ("NO_COLOR", "Log lines without colours"),
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "Collector that traces are sent to by OTLP over HTTP, such as `http://collector:4318`; none are sent without it",
            ),
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "The same with its whole path, such as `http://collector:4318/v1/traces`",
            ),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "Headers for the collector, such as `authorization=Bearer TOKEN` (secret)",
            ),
            (
                "OTEL_EXPORTER_OTLP_TIMEOUT",
                "Milliseconds that the collector has to answer [default: 10000]",
            ),
            (
                "OTEL_SERVICE_NAME",
                "Name of the service in traces [default: `bakeoff-worker`, `bakeoff-coordinator`]",
            ),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "Further attributes of every trace, such as `k8s.cluster.name=lab`",
            ),
            ("OTEL_TRACES_SAMPLER", "Which traces are kept [default: `parentbased_always_on`]"),
            ("OTEL_TRACES_SAMPLER_ARG", "The sampler's share, such as `0.1`"),
            ("OTEL_SDK_DISABLED", "`true`: no traces"),
        ],
    ),
    (
        "Object store",
        &[
            ("AWS_ACCESS_KEY_ID", "Access key of an S3 store"),
            ("AWS_SECRET_ACCESS_KEY", "Its secret (secret)"),
            ("AWS_SESSION_TOKEN", "Token of temporary credentials (secret)"),
            (
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                "File with a web identity token, exchanged for temporary credentials (IRSA); used when no access key is set",
            ),
            ("AWS_ROLE_ARN", "Role to assume with it"),
            ("AWS_ROLE_SESSION_NAME", "Name of that session"),
            (
                "AWS_ENDPOINT_URL_STS",
                "Where the token is exchanged [default: `https://sts.REGION.amazonaws.com`]",
            ),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "Credentials of EKS pod identity"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "Credentials of an ECS task"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "Token file of EKS pod identity"),
            (
                "SSL_CERT_FILE",
                "Authorities that HTTPS connections are checked by, in PEM [default: the system's]",
            ),
            (
                "HTTPS_PROXY, HTTP_PROXY, NO_PROXY",
                "Proxy for the object store, the hub and the collector",
            ),
        ],
    ),
    (
        "Model hub",
        &[
            (
                "HF_HOME",
                "Folder of everything Hugging Face's tools keep, models below `hub` [default: `~/.cache/huggingface`]",
            ),
            ("HF_HUB_CACHE", "Folder of downloaded models [default: `$HF_HOME/hub`]"),
            ("HF_TOKEN", "Access token for private and gated models (secret)"),
            ("HF_TOKEN_PATH", "File that holds the token [default: `$HF_HOME/token`]"),
            (
                "HF_ENDPOINT",
                "Address of the hub or of a mirror [default: `https://huggingface.co`]",
            ),
            ("HF_HUB_OFFLINE", "`1`: never ask the hub, use what the cache holds"),
        ],
    ),
    (
        "Machine",
        &[
            ("HOSTNAME", "First part of a worker's name where none is given"),
            ("RAYON_NUM_THREADS", "Threads that compute on a CPU [default: one a core]"),
            (
                "CUDA_VISIBLE_DEVICES",
                "GPUs that `cuda:N` counts over; NVML always counts all of them",
            ),
        ],
    ),
];
