//! What operators rely on, seen from both programs as processes beside a real broker and a real
//! store: traces, secrets that stay secret, credentials by web identity, the hub.

#[path = "../common/bench.rs"]
mod bench;
mod hub;
#[path = "../../../worker/engine/tests/loopback_hub/mod.rs"]
mod loopback_hub;
#[path = "../common/programs.rs"]
mod programs;
mod secrets;
mod traces;
mod web_identity;
