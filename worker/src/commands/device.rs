//! `--device`, as several commands take it.

use bakeoff_engine::load::DeviceChoice;
use clap::Args;

/// The device that a command uses.
#[derive(Debug, Clone, Copy, Args)]
pub struct DeviceArgs {
    /// auto, cpu or cuda:N; auto is the first GPU, if this build can use one and one is there
    #[arg(long, env = "BAKEOFF_DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
}
