//! The product as it runs on a cluster: `coordinator` and `worker` as processes, a real broker, a
//! real store. What each command says, and the exit code it says it with.

mod access;
#[path = "../common/bench.rs"]
mod bench;
mod commands;
mod events;
#[path = "../common/programs.rs"]
mod programs;
mod proof;
