//! Samples of a figure, and ratios between them.

use serde::{Deserialize, Serialize};

/// The direction in which a figure improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Better {
    Higher,
    Lower,
}

/// The values of a figure in all rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    pub(super) unit: String,
    pub(super) better: Better,
    /// One value per round, in order.
    pub(super) values: Vec<f64>,
    /// Derived from `values`, like the following fields; stored for readers of the JSON.
    pub(super) median: f64,
    pub(super) best: f64,
    /// Half the distance between the quartiles, as a share of the median.
    pub(super) spread: f64,
}

impl Sample {
    pub(super) fn new(unit: &str, better: Better, values: Vec<f64>) -> Self {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let median = quantile(&sorted, 0.5);
        let best = match better {
            Better::Higher => sorted.last(),
            Better::Lower => sorted.first(),
        };
        let width = quantile(&sorted, 0.75) - quantile(&sorted, 0.25);
        Sample {
            unit: unit.to_owned(),
            better,
            median,
            best: best.copied().unwrap_or(f64::NAN),
            spread: if median == 0.0 { 0.0 } else { width / 2.0 / median },
            values,
        }
    }

    pub(super) fn quartiles(&self) -> (f64, f64) {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        (quantile(&sorted, 0.25), quantile(&sorted, 0.75))
    }

    /// Returns the ratio to another sample, round by round, because a disturbance of the machine
    /// affects all peers in the same round.
    pub(super) fn ratio_to(&self, other: &Sample) -> Sample {
        let ratios = self.values.iter().zip(&other.values).map(|(ours, theirs)| ours / theirs);
        Sample::new("×", self.better, ratios.filter(|ratio| ratio.is_finite()).collect())
    }
}

/// Returns a quantile, interpolated between the two nearest of the `sorted` values.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let (low, part) = (place.floor() as usize, place.fract());
    sorted[low] + (sorted[(low + 1).min(last)] - sorted[low]) * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computes_median_best_and_spread() {
        let sample = Sample::new("GB/s", Better::Higher, vec![4.0, 1.0, 3.0, 2.0, 5.0]);
        assert_eq!((sample.median, sample.best), (3.0, 5.0));
        assert!((sample.spread - 1.0 / 3.0).abs() < 1e-9);
        let sample = Sample::new("s", Better::Lower, vec![2.0, 1.0]);
        assert_eq!((sample.median, sample.best), (1.5, 1.0));
    }

    #[test]
    fn computes_ratios_round_by_round() {
        let ours = Sample::new("s", Better::Lower, vec![1.0, 10.0, 3.0]);
        let theirs = Sample::new("s", Better::Lower, vec![2.0, 20.0, 6.0]);
        assert_eq!(ours.ratio_to(&theirs).values, [0.5, 0.5, 0.5]);
    }
}
