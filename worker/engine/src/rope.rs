//! Rotary positions. Angles, cosines and sines are FP32 whatever the model's dtype: in BF16 positions
//! beyond 256 are no longer told apart.

use std::f64::consts::TAU;

use bakeoff_model::shape::{Architecture, Fields, ModelShape, ShapeError};

/// How positions become angles.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    pub theta: f64,
    pub scaling: RopeScaling,
}

/// How a model made for short contexts is stretched over long ones.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    None,
    /// Every position divided by `factor`.
    Linear {
        factor: f64,
    },
    /// YaRN (arXiv 2309.00071): slow rotations are stretched, fast ones kept, the dimensions between
    /// `beta_slow` and `beta_fast` rotations blended.
    Yarn {
        factor: f64,
        original_context: usize,
        beta_fast: f64,
        beta_slow: f64,
        /// Multiplies cosines and sines.
        attention_factor: f64,
        /// Whether the blend's borders are rounded to whole dimensions.
        truncate: bool,
    },
    /// Llama 3.1's: by wavelength.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_context: usize,
    },
}

/// Cosines and sines, `[positions, head_dim / 2]` each, row-major.
#[derive(Debug, Clone)]
pub struct RopeTables {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

impl Rope {
    /// Reads `rope_theta` and `rope_scaling`, or `rope_parameters` as transformers 5 writes them.
    ///
    /// # Errors
    /// A missing or wrong field, or a type of scaling that is not among [`RopeScaling`].
    pub fn from_fields(fields: &Fields, shape: &ModelShape) -> Result<Self, ShapeError> {
        let parameters = fields.object("rope_parameters")?;
        let theta = match (fields.positive("rope_theta")?, &parameters) {
            (Some(theta), _) => Some(theta),
            (None, Some(parameters)) => parameters.positive("rope_theta")?,
            (None, None) => None,
        };
        let theta = match theta {
            Some(theta) => theta,
            // Configurations of the first Llama models do not have the field.
            None if shape.architecture == Architecture::Llama => 10_000.0,
            None => return Err(ShapeError::Missing("rope_theta")),
        };
        let scaling = match fields.object("rope_scaling")?.or(parameters) {
            None => RopeScaling::None,
            Some(scaling) => RopeScaling::from_fields(&scaling, fields)?,
        };
        Ok(Self { theta, scaling })
    }

    /// Tables for positions `0..positions`.
    pub fn tables(&self, head_dim: usize, positions: usize) -> RopeTables {
        let frequencies = self.frequencies(head_dim);
        let gain = match self.scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor,
            _ => 1.0,
        };
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        cos.reserve_exact(positions * frequencies.len());
        sin.reserve_exact(positions * frequencies.len());
        for position in 0..positions {
            for frequency in &frequencies {
                // The product is rounded to FP32, as transformers does: the two agree at far positions.
                let angle = f64::from(position as f32 * *frequency as f32);
                cos.push((angle.cos() * gain) as f32);
                sin.push((angle.sin() * gain) as f32);
            }
        }
        RopeTables { cos, sin }
    }

    /// Radians per position of each pair of dimensions, scaling applied.
    fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let plain = |pair: usize| self.theta.powf(-2.0 * pair as f64 / head_dim as f64);
        let pairs = 0..head_dim / 2;
        match self.scaling {
            RopeScaling::None => pairs.map(plain).collect(),
            RopeScaling::Linear { factor } => pairs.map(|pair| plain(pair) / factor).collect(),
            RopeScaling::Yarn {
                factor, original_context, beta_fast, beta_slow, truncate, ..
            } => {
                // The pair that turns `rotations` times over the original context.
                let border = |rotations: f64| {
                    head_dim as f64 * (original_context as f64 / (rotations * TAU)).ln()
                        / (2.0 * self.theta.ln())
                };
                let (mut low, mut high) = (border(beta_fast), border(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                (low, high) = (low.max(0.0), high.min(head_dim as f64 - 1.0));
                if low == high {
                    high += 0.001;
                }
                pairs
                    .map(|pair| {
                        let stretched = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                        plain(pair) * (1.0 - stretched) + plain(pair) / factor * stretched
                    })
                    .collect()
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                pairs
                    .map(|pair| {
                        let frequency = plain(pair);
                        let turns = original_context as f64 * frequency / TAU;
                        let kept = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        let kept = kept.clamp(0.0, 1.0);
                        frequency * kept + frequency / factor * (1.0 - kept)
                    })
                    .collect()
            }
        }
    }
}

impl RopeScaling {
    fn from_fields(scaling: &Fields, config: &Fields) -> Result<Self, ShapeError> {
        let kind = match scaling.text("rope_type")? {
            Some(kind) => Some(kind),
            None => scaling.text("type")?,
        };
        if scaling.number("partial_rotary_factor")?.is_some_and(|share| share != 1.0) {
            return Err(ShapeError::Unsupported {
                what: "`partial_rotary_factor`".to_owned(),
                next: "use a model that rotates whole heads",
            });
        }
        let required = |field: &'static str| {
            let value = scaling.positive(field)?;
            value.ok_or_else(|| scaling.bad(field, "a number above 0"))
        };
        let original_context = || match scaling.size("original_max_position_embeddings")? {
            Some(original) => Ok(original),
            None => config.required_size("max_position_embeddings"),
        };
        match kind.as_deref() {
            None | Some("default") => Ok(Self::None),
            Some("linear") => Ok(Self::Linear { factor: required("factor")? }),
            Some("yarn") => Ok(Self::Yarn {
                factor: required("factor")?,
                original_context: original_context()?,
                beta_fast: scaling.positive("beta_fast")?.unwrap_or(32.0),
                beta_slow: scaling.positive("beta_slow")?.unwrap_or(1.0),
                attention_factor: yarn_attention_factor(scaling, required("factor")?)?,
                truncate: scaling.flag("truncate")?.unwrap_or(true),
            }),
            Some("llama3") => Ok(Self::Llama3 {
                factor: required("factor")?,
                low_freq_factor: required("low_freq_factor")?,
                high_freq_factor: required("high_freq_factor")?,
                original_context: original_context()?,
            }),
            Some(other) => Err(ShapeError::Unsupported {
                what: format!("the position scaling {other:?} (`rope_scaling`)"),
                next: "supported are linear, yarn and llama3; without `rope_scaling` the model \
                       works within its original context",
            }),
        }
    }
}

/// The factor the checkpoint gives, or `0.1 ln(factor) + 1` (with the ratio of two such terms where it
/// gives `mscale` and `mscale_all_dim`).
fn yarn_attention_factor(scaling: &Fields, factor: f64) -> Result<f64, ShapeError> {
    if let Some(given) = scaling.positive("attention_factor")? {
        return Ok(given);
    }
    let term = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    match (scaling.positive("mscale")?, scaling.positive("mscale_all_dim")?) {
        (Some(mscale), Some(all_dim)) => Ok(term(mscale) / term(all_dim)),
        _ => Ok(term(1.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_angles_are_position_times_frequency() {
        let rope = Rope { theta: 10_000.0, scaling: RopeScaling::None };
        let tables = rope.tables(4, 3);
        let expected: Vec<f32> =
            [0.0f64, 0.0, 1.0, 0.01, 2.0, 0.02].iter().map(|angle| angle.cos() as f32).collect();
        for (found, expected) in tables.cos.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-6, "{:?}", tables.cos);
        }
    }

    #[test]
    fn far_positions_are_told_apart() {
        let tables = Rope { theta: 1e6, scaling: RopeScaling::None }.tables(128, 32_768);
        let row = |position: usize| &tables.cos[position * 64..][..64];
        assert_ne!(row(32_766), row(32_767));
        assert!((row(32_767)[0] - (32_767f64).cos() as f32).abs() < 1e-6);
    }

    #[test]
    fn llama3_keeps_fast_rotations_and_stretches_slow_ones() {
        let plain = Rope { theta: 500_000.0, scaling: RopeScaling::None };
        let scaled = Rope {
            theta: 500_000.0,
            scaling: RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_context: 8192,
            },
        };
        let (plain, scaled) = (plain.frequencies(128), scaled.frequencies(128));
        assert_eq!(plain[0], scaled[0]);
        assert!((plain[63] / 8.0 - scaled[63]).abs() < 1e-15);
        assert!(scaled.windows(2).all(|pair| pair[0] > pair[1]));
    }
}
