//! A device by name, as flags and variables give it.

use std::str::FromStr;

use crate::load::DeviceChoice;

/// A name that is not a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown device `{0}`: expected auto, cpu or cuda:N")]
pub struct UnknownDevice(pub String);

/// `auto` (resolved at once), `cpu`, `cuda` or `cuda:N`.
impl FromStr for DeviceChoice {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownDevice(text.to_owned());
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::auto()),
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", index)) => index.parse().map(Self::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl DeviceChoice {
    /// The GPU's number, as NVML counts; `None` for the CPU.
    pub fn gpu_index(self) -> Option<u32> {
        match self {
            Self::Cpu => None,
            Self::Cuda(index) => u32::try_from(index).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_or_refused_with_what_was_expected() {
        assert_eq!("cuda:1".parse(), Ok(DeviceChoice::Cuda(1)));
        assert_eq!("cpu".parse(), Ok(DeviceChoice::Cpu));
        for unknown in ["tpu", "cuda:x", "cpu:0", ""] {
            let error = unknown.parse::<DeviceChoice>().unwrap_err().to_string();
            let expected = format!("unknown device `{unknown}`: expected auto, cpu or cuda:N");
            assert_eq!(error, expected);
        }
    }
}
