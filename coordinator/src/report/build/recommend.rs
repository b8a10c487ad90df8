//! Recommendations, each by a rule that stands in the sweep and beside the result.

use std::collections::BTreeSet;

use super::measures;
use crate::report::model::{CellFacts, Figure, Measure, Recommendation, Variant};
use crate::stats::Ratio;
use crate::sweep::ReportRules;

/// `variants`: those about which something may be concluded.
pub fn all(
    variants: &[&Variant],
    cells: &[CellFacts],
    measure: Measure,
    rules: &ReportRules,
) -> Vec<Recommendation> {
    let judge = Judge { variants, cells, measure, rules };
    vec![judge.realtime(), judge.quality_first(), judge.batch()]
}

struct Judge<'a> {
    variants: &'a [&'a Variant],
    cells: &'a [CellFacts],
    measure: Measure,
    rules: &'a ReportRules,
}

/// What variants are ranked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Speed,
    Quality,
    /// GPU time per usable output; the least is best.
    GpuTime,
}

/// A use, its rule, and those that qualify.
struct Use<'a> {
    name: &'static str,
    rule: String,
    fit: Vec<&'a Variant>,
    /// Those whose first key do not differ significantly from the best are ranked by the second.
    keys: [Key; 2],
    figures: [Key; 3],
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

    fn realtime(&self) -> Recommendation {
        let (tpot, ttft) = (self.rules.realtime_max_tpot_ms, self.rules.realtime_max_ttft_ms);
        let fit = |v: &&Variant| {
            quality(v).is_some_and(|q| q >= self.floor())
                && v.tpot_ms.is_some_and(|s| s.mean <= tpot)
                && v.ttft_ms.is_none_or(|s| s.mean <= ttft)
        };
        self.decide(Use {
            name: "Real-time use",
            rule: format!(
                "the fastest of those that stream a token within {tpot:.0} ms, start within \
                {ttft:.0} ms, and reach {}",
                self.measure.show(self.floor())
            ),
            fit: self.variants.iter().copied().filter(fit).collect(),
            keys: [Key::Speed, Key::Quality],
            figures: [Key::Speed, Key::Quality, Key::GpuTime],
        })
    }

    fn quality_first(&self) -> Recommendation {
        self.decide(Use {
            name: "Quality first",
            rule: "the best quality, whatever the speed; of equals, the faster".to_owned(),
            fit: self
                .variants
                .iter()
                .copied()
                .filter(|v| quality(v).is_some_and(|q| q > 0.0))
                .collect(),
            keys: [Key::Quality, Key::Speed],
            figures: [Key::Quality, Key::Speed, Key::GpuTime],
        })
    }

    fn batch(&self) -> Recommendation {
        let stars = self.rules.batch_within_stars;
        let (within, shown) = match self.measure {
            Measure::Stars => (stars, format!("{stars:.1} stars")),
            Measure::PassRate | Measure::Evidence | Measure::None => {
                (stars / 5.0, format!("{:.0} points", stars * 20.0))
            }
        };
        let best =
            self.variants.iter().copied().filter_map(quality).fold(f64::NEG_INFINITY, f64::max);
        let fit = |v: &&Variant| {
            quality(v).is_some_and(|q| q >= best - within) && v.gpu_s_per_passing.is_some()
        };
        let fit: Vec<&Variant> = self.variants.iter().copied().filter(fit).collect();
        let mut recommendation = self.decide(Use {
            name: "Batch use",
            rule: format!(
                "the least GPU time per usable output of those within {shown} of the best: nobody \
                waits, so quality is held and cost is cut"
            ),
            fit: fit.clone(),
            keys: [Key::GpuTime, Key::Quality],
            figures: [Key::GpuTime, Key::Quality, Key::Speed],
        });
        let winner = fit.iter().find(|v| Some(&v.name) == recommendation.variant.as_ref());
        if let Some(winner) = winner {
            let dominated: Vec<_> = fit
                .iter()
                .filter(|v| v.dominated_by.as_ref() == Some(&winner.name))
                .map(|v| {
                    let times = value(v, Key::GpuTime) / value(winner, Key::GpuTime);
                    format!("{} ({times:.1} times the time and no better)", v.name)
                })
                .collect();
            if !dominated.is_empty() {
                recommendation.because.push_str("; it dominates ");
                recommendation.because.push_str(&dominated.join(", "));
            }
        }
        recommendation
    }

    /// The best of those that qualify, unless it does not differ significantly from the next.
    fn decide(&self, mut of: Use<'_>) -> Recommendation {
        let none = |rule: String, because: String| Recommendation {
            use_case: of.name.to_owned(),
            variant: None,
            anchor: None,
            tied: Vec::new(),
            rule,
            because,
            figures: Vec::new(),
            caveats: Vec::new(),
        };
        let [first, second] = of.keys;
        of.fit.sort_by(|a, b| better(a, b, first).then(better(a, b, second)));
        let Some(best) = of.fit.first().copied() else {
            if self.variants.is_empty() {
                return none(of.rule, "no model can be judged: see the warnings".to_owned());
            }
            let best = self.variants.iter().copied().filter_map(quality).max_by(f64::total_cmp);
            let reached = best.map_or_else(String::new, |best| {
                format!("; the best quality is {}", self.measure.show(best))
            });
            return none(of.rule, format!("no model qualifies{reached}"));
        };
        let tied = |v: &&&Variant| !self.ratio(best, v, first).is_some_and(|r| r.significant);
        let mut equals: Vec<&Variant> =
            std::iter::once(&best).chain(of.fit.iter().skip(1).filter(tied)).copied().collect();
        equals.sort_by(|a, b| better(a, b, second));
        let winner = equals[0];
        let because = match (equals.get(1), of.fit.get(1)) {
            (Some(next), _) => match self.ratio(winner, next, second) {
                Some(ratio) if ratio.significant => format!(
                    "does not differ significantly from {} by {}; {}",
                    next.name,
                    first.words(),
                    lead(second, &ratio, &next.name, self.rules)
                ),
                _ => return self.tie(of, &equals),
            },
            (None, Some(next)) => match self.ratio(winner, next, first) {
                Some(ratio) => lead(first, &ratio, &next.name, self.rules),
                None => format!("nothing pairs it with {}", next.name),
            },
            (None, None) => match self.variants.len() - 1 {
                0 => "the only model that can be judged".to_owned(),
                others => format!("the only one of {} that qualifies", others + 1),
            },
        };
        Recommendation {
            use_case: of.name.to_owned(),
            variant: Some(winner.name.clone()),
            anchor: Some(winner.anchor.clone()),
            tied: Vec::new(),
            rule: of.rule,
            because,
            figures: self.figures(winner, of.figures),
            caveats: self.caveats(winner),
        }
    }

    /// Those that cannot be told apart are the answer, with what would tell, and with what is ruled
    /// out. `equals`: those alike by the first key, the best by the second first.
    fn tie(&self, of: Use<'_>, equals: &[&Variant]) -> Recommendation {
        let [first, second] = of.keys;
        let (best, next) = (equals[0], equals[1]);
        let behind = |v: &Variant, key| self.ratio(best, v, key).filter(|r| r.significant);
        let (tied, worse): (Vec<&Variant>, Vec<&Variant>) =
            equals.iter().copied().partition(|v| behind(v, second).is_none());
        let mut because = format!(
            "not distinguishable by {} ({}{}) nor by {}: {}",
            first.words(),
            tied.iter().map(|v| self.shown(v, first)).collect::<Vec<_>>().join(" and "),
            self.ratio(best, next, first).map_or_else(String::new, |r| spread(first, &r)),
            second.words(),
            self.what_would_tell(best, next, of.keys),
        );
        for v in self.variants.iter().filter(|v| !tied.iter().any(|t| t.name == v.name)) {
            let key = if worse.iter().any(|w| w.name == v.name) { second } else { first };
            let why = match behind(v, key) {
                _ if !of.fit.iter().any(|f| f.name == v.name) => {
                    format!("{} does not meet the rule", v.name)
                }
                Some(ratio) => {
                    format!("{} is {}", best.name, lead(key, &ratio, &v.name, self.rules))
                }
                None => continue,
            };
            because.push_str(&format!("; not {}: {why}", v.name));
        }
        let mut caveats: Vec<String> = Vec::new();
        for caveat in tied.iter().flat_map(|v| self.caveats(v)) {
            if !caveats.contains(&caveat) {
                caveats.push(caveat);
            }
        }
        Recommendation {
            use_case: of.name.to_owned(),
            variant: None,
            anchor: None,
            tied: tied.iter().map(|v| (v.name.clone(), v.anchor.clone())).collect(),
            rule: of.rule,
            because,
            figures: Vec::new(),
            caveats,
        }
    }

    /// How many more prompts would tell two apart, by the key that needs the fewest.
    fn what_would_tell(&self, a: &Variant, b: &Variant, keys: [Key; 2]) -> String {
        let ratios: Vec<Ratio> = keys.iter().filter_map(|key| self.ratio(a, b, *key)).collect();
        let prompts: BTreeSet<&str> =
            self.cells.iter().filter(|c| c.variant == a.name).map(|c| c.prompt.as_str()).collect();
        let more = ratios.iter().filter_map(|ratio| {
            // Each prompt gives as many pairs as the sweep has runs.
            let of_prompt = ratio.n.div_ceil(prompts.len().max(1)).max(1);
            Some(ratio.more_pairs?.div_ceil(of_prompt))
        });
        match more.min() {
            Some(1) => "about 1 more prompt would tell".to_owned(),
            Some(prompts) => format!("about {prompts} more prompts would tell"),
            None if ratios.iter().all(|ratio| ratio.n < 2) => {
                "a single pair shows no spread, so add prompts or runs".to_owned()
            }
            None => "they agree in every pair, so only other prompts would tell".to_owned(),
        }
    }

    /// A variant's value as people read it.
    fn shown(&self, v: &Variant, key: Key) -> String {
        match key {
            Key::Speed => format!("{:.1} tok/s", value(v, key)),
            Key::Quality => self.measure.show(value(v, key)),
            Key::GpuTime => format!("{:.2} s", value(v, key)),
        }
    }

    fn figures(&self, v: &Variant, keys: [Key; 3]) -> Vec<Figure> {
        let figure = |label: &str, value: String| Figure { label: label.to_owned(), value };
        let currency = &self.rules.currency;
        let mut figures: Vec<Figure> = keys
            .into_iter()
            .filter_map(|key| match key {
                Key::Speed => Some(figure("speed", format!("{:.1} tok/s", v.tok_per_s?.mean))),
                Key::Quality => Some(figure("quality", self.measure.show(quality(v)?))),
                Key::GpuTime => {
                    let seconds = v.gpu_s_per_passing?;
                    let digits = if seconds < 10.0 { 2 } else { 1 };
                    Some(match v.cost_per_passing {
                        Some(cost) => {
                            figure("cost of a usable output", format!("{cost:.4} {currency}"))
                        }
                        None => figure("time of a usable output", format!("{seconds:.digits$} s")),
                    })
                }
            })
            .collect();
        if let Some(cost) = v.cost_per_million_tokens {
            figures.push(figure("per million tokens", format!("{cost:.2} {currency}")));
        }
        let cheapest = v.sizing.iter().filter(|fit| fit.fits);
        if let Some(gpu) = cheapest.min_by(|a, b| a.price_per_hour.total_cmp(&b.price_per_hour)) {
            let price = format!("{}, {:.2} {}/h", gpu.gpu, gpu.price_per_hour, gpu.currency);
            figures.push(figure("cheapest GPU, price assumed", price));
        }
        figures
    }

    fn caveats(&self, v: &Variant) -> Vec<String> {
        let mut caveats = Vec::new();
        if v.single_run {
            caveats.push("single run".to_owned());
        }
        if self.measure == Measure::Evidence {
            caveats.push("machine evidence only, no review yet".to_owned());
        }
        if v.truncated > 0 {
            caveats.push(format!("{} of {} outputs truncated", v.truncated, v.done));
        }
        caveats
    }

    /// By what factor `a` is ahead of `b`, paired by prompt and run; above 1 is better.
    fn ratio(&self, a: &Variant, b: &Variant, key: Key) -> Option<Ratio> {
        let of = |name: &str, prompt: &str, run: u32| {
            self.cells.iter().find(|c| c.variant == name && c.prompt == prompt && c.run == run)
        };
        let value = |cell: &CellFacts| match key {
            Key::Speed => cell.metrics.as_ref().map(|m| m.tok_per_s),
            // What takes half the time is twice as good. An output that cannot be used costs as
            // well, but its share stands in the means by which the two were ranked.
            Key::GpuTime => cell.metrics.as_ref().map(|m| 1.0 / m.time_s),
            Key::Quality => match self.measure {
                Measure::Stars => measures::stars(cell),
                // A share of zero has no ratio: shift it, the order and the sign stay.
                Measure::PassRate => cell.behaviour.map(|p| 1.0 + f64::from(u8::from(p))),
                Measure::Evidence => measures::evidence(cell).map(|share| share + 1.0),
                Measure::None => None,
            },
        };
        let pairs: Vec<(f64, f64)> = self
            .cells
            .iter()
            .filter(|cell| cell.variant == a.name)
            .filter_map(|x| Some((value(of(&b.name, &x.prompt, x.run)?)?, value(x)?)))
            .collect();
        Ratio::of(&pairs, self.rules.margin_pct)
    }
}

impl Key {
    fn words(self) -> &'static str {
        match self {
            Self::Speed => "speed",
            Self::Quality => "quality",
            Self::GpuTime => "GPU time",
        }
    }
}

fn quality(variant: &Variant) -> Option<f64> {
    variant.quality.map(|quality| quality.mean)
}

fn value(v: &Variant, key: Key) -> f64 {
    match key {
        Key::Speed => v.tok_per_s.map_or(0.0, |s| s.mean),
        Key::Quality => quality(v).unwrap_or_default(),
        Key::GpuTime => v.gpu_s_per_passing.unwrap_or(f64::INFINITY),
    }
}

/// The better one first.
fn better(a: &Variant, b: &Variant, key: Key) -> std::cmp::Ordering {
    let (a, b) = (value(a, key), value(b, key));
    if key == Key::GpuTime { a.total_cmp(&b) } else { b.total_cmp(&a) }
}

/// How sure a difference is that is none, behind the values; ratios of shifted shares are not shown.
fn spread(key: Key, ratio: &Ratio) -> String {
    let pairs =
        if ratio.n == 1 { "a single pair".to_owned() } else { format!("{} pairs", ratio.n) };
    match (key, ratio.low, ratio.high) {
        (Key::Speed | Key::GpuTime, Some(low), Some(high)) => {
            format!("; 95 % interval of their ratio {low:.2}–{high:.2}, {pairs}")
        }
        _ => format!("; {pairs}"),
    }
}

/// How far ahead of the next, and how sure that is.
fn lead(key: Key, ratio: &Ratio, next: &str, rules: &ReportRules) -> String {
    let pairs = |interval: String| match ratio.low {
        Some(_) => format!("95 % interval {interval}, {} pairs", ratio.n),
        None => format!("a single pair, counted beyond {:.0} %", rules.margin_pct),
    };
    let (low, high) = (ratio.low.unwrap_or(ratio.ratio), ratio.high.unwrap_or(ratio.ratio));
    match key {
        Key::Speed => {
            let sure = pairs(format!("{low:.2}–{high:.2}"));
            format!("{:.2} times as fast as {next} ({sure})", ratio.ratio)
        }
        Key::GpuTime => {
            let sure = pairs(format!("{:.0}–{:.0} %", 100.0 / high, 100.0 / low));
            format!("{:.0} % of the time of {next} ({sure})", 100.0 / ratio.ratio)
        }
        Key::Quality => {
            // The interval is of shifted shares: that it excludes equality is what it shows.
            let sure = pairs("excludes equality".to_owned());
            format!("better than {next} ({sure})")
        }
    }
}
