//! A mergeable summary of durations: log-linear buckets, 256 to each power of two.
//!
//! The design names DDSketch; its buckets need a logarithm, which may differ by a bit from one machine's library to
//! the next, and replicas must agree to the bit. These need shifts only and are as mergeable. A quantile is within
//! [`ACCURACY`] of the true value.

use std::collections::BTreeMap;

/// Relative accuracy of a quantile: half a bucket.
pub const ACCURACY: f64 = 1.0 / 512.0;

/// Counts of durations by bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sketch {
    /// Durations of zero or less.
    pub zero: u64,
    /// The buckets, see [`bucket`].
    pub buckets: BTreeMap<i32, u64>,
}

/// The bucket of a duration: microseconds up to 511 have one each; beyond, the leading nine bits and the exponent.
fn bucket(micros: u64) -> i32 {
    let exponent = micros.checked_ilog2().unwrap_or(0).saturating_sub(8);
    ((exponent << 8) as i32) + (micros >> exponent) as i32
}

/// The middle of a bucket, in microseconds.
fn middle(bucket: i32) -> f64 {
    let exponent = (bucket >> 8) - 1;
    if exponent <= 0 {
        return f64::from(bucket);
    }
    let lead = f64::from((bucket & 0xff) + 256);
    (lead + 0.5) * 2f64.powi(exponent)
}

impl Sketch {
    /// Adds a duration in microseconds.
    pub fn add(&mut self, micros: i64) {
        if micros <= 0 {
            self.zero += 1;
            return;
        }
        let bucket = bucket(micros.unsigned_abs());
        *self.buckets.entry(bucket).or_default() += 1;
    }

    /// Adds another sketch.
    pub fn merge(&mut self, other: &Sketch) {
        self.zero += other.zero;
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
    }

    /// How many durations.
    pub fn count(&self) -> u64 {
        self.zero + self.buckets.values().sum::<u64>()
    }

    /// The lower median for q = 0.5 and so on, in seconds; 0 when there is nothing.
    pub fn quantile(&self, q: f64) -> f64 {
        let count = self.count();
        if count == 0 {
            return 0.0;
        }
        let rank = (q * (count - 1) as f64).floor() as u64;
        let mut seen = self.zero;
        if rank < seen {
            return 0.0;
        }
        for (bucket, n) in &self.buckets {
            seen += n;
            if rank < seen {
                return middle(*bucket) / 1e6;
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_within_its_accuracy_of_the_true_value() {
        let mut sketch = Sketch::default();
        let mut all = Vec::new();
        for i in 1..20_000i64 {
            let micros = i * i * 37 % 90_000_000_000 + 1;
            sketch.add(micros);
            all.push(micros);
        }
        all.sort_unstable();
        for q in [0.0, 0.1, 0.5, 0.9, 0.99, 1.0] {
            let truth = all[(q * (all.len() - 1) as f64).floor() as usize] as f64 / 1e6;
            let got = sketch.quantile(q);
            let off = (got - truth).abs() / truth;
            assert!(off <= ACCURACY * 1.01, "q {q}: {got} instead of {truth}");
        }
    }

    #[test]
    fn merging_is_adding() {
        let (mut a, mut b, mut both) = (Sketch::default(), Sketch::default(), Sketch::default());
        for i in -3..500 {
            if i % 2 == 0 { &mut a } else { &mut b }.add(i * 1000);
            both.add(i * 1000);
        }
        a.merge(&b);
        assert_eq!(a, both);
    }
}
