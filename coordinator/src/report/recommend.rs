//! Recommendations, each by a rule that stands in the sweep and beside the result.

use super::model::{CellFacts, Measure, Recommendation, Variant};
use crate::stats::Ratio;
use crate::sweep::ReportRules;

pub fn all(
    variants: &[Variant],
    cells: &[CellFacts],
    measure: Measure,
    rules: &ReportRules,
) -> Vec<Recommendation> {
    let judge = Judge { variants, cells, measure, rules };
    vec![judge.realtime(), judge.quality_first(), judge.batch()]
}

struct Judge<'a> {
    variants: &'a [Variant],
    cells: &'a [CellFacts],
    measure: Measure,
    rules: &'a ReportRules,
}

impl Judge<'_> {
    fn floor(&self) -> f64 {
        match self.measure {
            Measure::Stars => self.rules.min_stars,
            Measure::PassRate => self.rules.min_pass_rate,
            Measure::Evidence => self.rules.min_evidence,
            Measure::None => 0.0,
        }
    }

    fn quality(variant: &Variant) -> Option<f64> {
        variant.quality.map(|quality| quality.mean)
    }

    fn realtime(&self) -> Recommendation {
        let (tpot, ttft) = (self.rules.realtime_max_tpot_ms, self.rules.realtime_max_ttft_ms);
        let rule = format!(
            "the fastest of those that stream a token within {tpot:.0} ms, start within {ttft:.0} ms, and reach {}",
            self.measure.show(self.floor())
        );
        let mut fit: Vec<&Variant> = self
            .variants
            .iter()
            .filter(|v| Self::quality(v).is_some_and(|q| q >= self.floor()))
            .filter(|v| v.tpot_ms.is_some_and(|s| s.mean <= tpot))
            .filter(|v| v.ttft_ms.is_none_or(|s| s.mean <= ttft))
            .collect();
        let speed = |v: &Variant| v.tok_per_s.map_or(0.0, |s| s.mean);
        fit.sort_by(|a, b| speed(b).total_cmp(&speed(a)));
        self.decide("Real-time use", rule, &fit, |best| {
            let tpot = best.tpot_ms.map_or(0.0, |s| s.mean);
            format!(
                "{:.1} tok/s, {tpot:.1} ms a token, quality {}",
                speed(best),
                self.measure.show(Self::quality(best).unwrap_or_default())
            )
        })
    }

    fn quality_first(&self) -> Recommendation {
        let rule = "the best quality, whatever the speed; of equals, the faster".to_owned();
        let mut fit: Vec<&Variant> =
            self.variants.iter().filter(|v| Self::quality(v).is_some()).collect();
        let key = |v: &Variant| {
            (Self::quality(v).unwrap_or_default(), v.tok_per_s.map_or(0.0, |s| s.mean))
        };
        fit.sort_by(|a, b| {
            let ((qa, sa), (qb, sb)) = (key(a), key(b));
            qb.total_cmp(&qa).then(sb.total_cmp(&sa))
        });
        self.decide("Quality first", rule, &fit, |best| {
            let (quality, speed) = key(best);
            format!("quality {}, {speed:.1} tok/s", self.measure.show(quality))
        })
    }

    fn batch(&self) -> Recommendation {
        let within = match self.measure {
            Measure::Stars => self.rules.batch_within_stars,
            Measure::PassRate | Measure::Evidence | Measure::None => {
                self.rules.batch_within_stars / 5.0
            }
        };
        let shown = match self.measure {
            Measure::Stars => format!("{within:.1} stars"),
            Measure::PassRate | Measure::Evidence | Measure::None => {
                format!("{:.0} points", within * 100.0)
            }
        };
        let rule = format!(
            "the least GPU time per usable output of those within {shown} of the best: nobody waits, so quality is held and cost is cut"
        );
        let best = self.variants.iter().filter_map(Self::quality).fold(f64::NEG_INFINITY, f64::max);
        let mut fit: Vec<&Variant> = self
            .variants
            .iter()
            .filter(|v| Self::quality(v).is_some_and(|q| q >= best - within))
            .filter(|v| v.gpu_s_per_passing.is_some())
            .collect();
        let cost = |v: &Variant| v.gpu_s_per_passing.unwrap_or(f64::INFINITY);
        fit.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
        let mut recommendation = self.decide("Batch use", rule, &fit, |best| {
            let price = best
                .cost_per_passing
                .map_or_else(String::new, |price| format!(", {price:.4} {}", self.rules.currency));
            format!("{:.1} GPU-seconds per usable output{price}", cost(best))
        });
        if let Some(winner) = &recommendation.variant {
            for other in fit.iter().filter(|v| v.dominated_by.as_ref() == Some(winner)) {
                recommendation.because.push_str(&format!(
                    "; {} is dominated: no better and {:.1} times the GPU time",
                    other.name,
                    cost(other) / fit.first().map_or(1.0, |v| cost(v))
                ));
            }
        }
        recommendation
    }

    /// Takes the first of `fit`, unless the second cannot be told from it.
    fn decide(
        &self,
        use_case: &str,
        rule: String,
        fit: &[&Variant],
        reason: impl Fn(&Variant) -> String,
    ) -> Recommendation {
        let none = |because: String| Recommendation {
            use_case: use_case.to_owned(),
            variant: None,
            anchor: None,
            rule: rule.clone(),
            because,
            caveats: Vec::new(),
        };
        let Some(best) = fit.first() else {
            return none("no model qualifies".to_owned());
        };
        if let Some(second) = fit.get(1)
            && !self.tells_apart(best, second)
        {
            return none(format!(
                "no rank: the difference between {} and {} is not significant",
                best.name, second.name
            ));
        }
        let mut caveats = Vec::new();
        if best.single_run {
            caveats.push("single run".to_owned());
        }
        if self.measure == Measure::Evidence {
            caveats.push("machine evidence only, no review yet".to_owned());
        }
        if best.truncated > 0 {
            caveats.push(format!("{} of {} outputs truncated", best.truncated, best.done));
        }
        Recommendation {
            use_case: use_case.to_owned(),
            variant: Some(best.name.clone()),
            anchor: Some(best.anchor.clone()),
            rule,
            because: reason(best),
            caveats,
        }
    }

    /// Speed, or quality, differs beyond what chance explains, paired by prompt and run.
    fn tells_apart(&self, a: &Variant, b: &Variant) -> bool {
        let of = |name: &str, prompt: &str, run: u32| {
            self.cells.iter().find(|c| c.variant == name && c.prompt == prompt && c.run == run)
        };
        let pairs = |value: &dyn Fn(&CellFacts) -> Option<f64>| -> Vec<(f64, f64)> {
            self.cells
                .iter()
                .filter(|cell| cell.variant == a.name)
                .filter_map(|x| Some((value(x)?, value(of(&b.name, &x.prompt, x.run)?)?)))
                .collect()
        };
        let speeds = pairs(&|cell| cell.metrics.as_ref().map(|m| m.tok_per_s));
        let qualities = pairs(&|cell| match self.measure {
            Measure::Stars => super::build::stars(cell),
            // A share of zero has no ratio: shift it, the order and the sign stay.
            Measure::Evidence => super::build::evidence(cell).map(|share| share + 1.0),
            Measure::PassRate | Measure::None => None,
        });
        let margin = self.rules.margin_pct;
        let significant =
            |pairs: &[(f64, f64)]| Ratio::of(pairs, margin).is_some_and(|ratio| ratio.significant);
        significant(&speeds) || significant(&qualities)
    }
}
