//! What runs measured, reduced to a few numbers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The figures of one run, by name, in the order in which they are shown.
pub(crate) type Figures = Vec<(String, f64)>;

/// Durations in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<u32>);

impl Samples {
    pub(crate) fn push(&mut self, span: Duration) {
        self.0.push(u32::try_from(span.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Those at these shares of all, each between 0 and 1, in microseconds; zeros without samples.
    ///
    /// The smallest sample that at least this share of the samples does not exceed.
    pub(crate) fn at<const N: usize>(mut self, shares: [f64; N]) -> [f64; N] {
        self.0.sort_unstable();
        let count = self.0.len();
        shares.map(|share| {
            // A number of samples is far below 2^53.
            let rank = (share * count as f64).ceil() as usize;
            self.0.get(rank.clamp(1, count.max(1)) - 1).copied().map_or(0.0, f64::from)
        })
    }
}

/// The median of several runs, and how far they lie apart.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// None without runs. With an even number of runs the median is the mean of the middle two.
    pub(crate) fn of(mut runs: Vec<f64>) -> Option<Self> {
        runs.sort_by(f64::total_cmp);
        let (min, max) = (*runs.first()?, *runs.last()?);
        let middle = runs.len() / 2;
        let median = if runs.len() % 2 == 1 {
            runs[middle]
        } else {
            f64::midpoint(runs[middle - 1], runs[middle])
        };
        Some(Self { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_smallest_sample_that_so_many_do_not_exceed() {
        let mut samples = Samples::default();
        for micros in (1..=100).rev() {
            samples.push(Duration::from_micros(micros));
        }
        assert_eq!(
            samples.clone().at([0.0, 0.5, 0.505, 0.99, 0.999, 1.0]),
            [1.0, 50.0, 51.0, 99.0, 100.0, 100.0]
        );
        let mut one = Samples::default();
        one.push(Duration::from_micros(7));
        assert_eq!(one.at([0.01, 0.5, 1.0]), [7.0; 3]);
        assert_eq!(Samples::default().at([0.5]), [0.0]);
    }

    #[test]
    fn a_spread_is_the_median_and_the_extremes() {
        let spread = |runs: &[f64]| Spread::of(runs.to_vec());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }
}
