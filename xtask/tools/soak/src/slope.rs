//! Straight lines through samples: whether a figure grows, and how fast.

/// A figure over time.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// (hours since the start, value).
    samples: Vec<(f64, f64)>,
}

impl Series {
    /// Adds a sample.
    pub fn push(&mut self, hours: f64, value: f64) {
        self.samples.push((hours, value));
    }

    /// First and last value.
    pub fn ends(&self) -> Option<(f64, f64)> {
        Some((self.samples.first()?.1, self.samples.last()?.1))
    }

    /// The samples without the first part, during which caches and tables fill.
    pub fn after_warm_up(&self, hours: f64) -> Self {
        Self { samples: self.samples.iter().copied().filter(|(at, _)| *at >= hours).collect() }
    }

    /// Smallest and largest value.
    pub fn range(&self) -> Option<(f64, f64)> {
        let values = self.samples.iter().map(|(_, value)| *value);
        Some((values.clone().reduce(f64::min)?, values.reduce(f64::max)?))
    }

    /// Growth per hour: the slope of the least-squares line. Needs two points in time.
    pub fn per_hour(&self) -> Option<f64> {
        let count = self.samples.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| self.samples.iter().map(of).sum::<f64>() / count;
        let (at, value) = (mean(|sample| sample.0), mean(|sample| sample.1));
        let spread: f64 = self.samples.iter().map(|(x, _)| (x - at).powi(2)).sum();
        let together: f64 = self.samples.iter().map(|(x, y)| (x - at) * (y - value)).sum();
        (spread > 0.0).then(|| together / spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(samples: &[(f64, f64)]) -> Series {
        Series { samples: samples.to_vec() }
    }

    #[test]
    fn a_line_has_its_slope() {
        let line = series(&[(0.0, 10.0), (0.5, 12.0), (1.0, 14.0)]);
        assert!((line.per_hour().unwrap() - 4.0).abs() < 1e-9);
        assert_eq!(line.ends(), Some((10.0, 14.0)));
        assert_eq!(line.range(), Some((10.0, 14.0)));
    }

    #[test]
    fn noise_around_a_level_has_hardly_any_slope() {
        let noise = series(&[(0.0, 5.0), (0.1, 6.0), (0.2, 6.0), (0.3, 5.0)]);
        assert!(noise.per_hour().unwrap().abs() < 1e-9);
    }

    #[test]
    fn warming_up_does_not_count() {
        let all = series(&[(0.0, 0.0), (0.1, 50.0), (0.5, 50.0), (1.0, 50.0)]);
        assert!(all.per_hour().unwrap() > 10.0);
        assert!(all.after_warm_up(0.1).per_hour().unwrap().abs() < 1e-9);
        assert_eq!(series(&[(0.0, 1.0)]).per_hour(), None);
    }
}
