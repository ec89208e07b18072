//! What a run measured: latencies, counts, and the CPU time and memory of a process. Linux only where it looks at
//! processes.

use crate::cli::exit::Trouble;
use hdrhistogram::Histogram;
use std::time::Duration;

/// Clock ticks per second in `/proc/<pid>/stat`: 100 on every Linux (USER_HZ is part of its interface).
const TICKS: f64 = 100.0;

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// In microseconds.
    pub latencies: Histogram<u64>,
    pub errors: u64,
    /// The first of them.
    pub error: Option<String>,
    pub elapsed: Duration,
    /// CPU seconds of the process measured.
    pub cpu: Option<f64>,
}

impl Run {
    pub fn new() -> Run {
        Run {
            latencies: histogram(),
            errors: 0,
            error: None,
            elapsed: Duration::ZERO,
            cpu: None,
        }
    }

    pub fn answered(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        // the histogram's highest value stands for everything above it
        self.latencies.saturating_record(micros);
    }

    pub fn failed(&mut self, error: impl Into<String>) {
        self.errors += 1;
        self.error.get_or_insert_with(|| error.into());
    }

    pub fn merge(&mut self, other: Run) {
        // both were made by `histogram`, so the one fits into the other
        let _ = self.latencies.add(&other.latencies);
        self.errors += other.errors;
        if self.error.is_none() {
            self.error = other.error;
        }
    }

    /// Answers per second.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// CPU seconds per 10,000 answers.
    pub fn cpu_per_10k(&self) -> Option<f64> {
        let answers = self.latencies.len();
        self.cpu
            .filter(|_| answers > 0)
            .map(|cpu| cpu * 10_000.0 / answers as f64)
    }
}

/// From 1 µs to a minute, three digits.
fn histogram() -> Histogram<u64> {
    #[allow(
        clippy::expect_used,
        reason = "the bounds are constants that the library accepts; a test makes one"
    )]
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are valid")
}

/// Several runs of one thing: the rate is the median, the latencies are those of all together.
#[derive(Clone, Debug)]
pub(super) struct Rounds {
    pub rate: f64,
    pub rates: Vec<f64>,
    pub cpu_per_10k: Option<f64>,
    pub all: Run,
}

impl Rounds {
    pub fn of(runs: Vec<Run>) -> Rounds {
        let rates: Vec<f64> = runs.iter().map(Run::rate).collect();
        let cpus: Option<Vec<f64>> = runs.iter().map(Run::cpu_per_10k).collect();
        let mut all = Run::new();
        for run in runs {
            all.merge(run);
        }
        Rounds {
            rate: median(&rates),
            cpu_per_10k: cpus.map(|c| median(&c)),
            rates,
            all,
        }
    }
}

/// The one in the middle, or the mean of the two; 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n.is_multiple_of(2) => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
        n => sorted[n / 2],
    }
}

/// CPU seconds that a process has used so far.
pub(super) fn cpu(pid: u32) -> Result<f64, Trouble> {
    let text = read(pid, "stat")?;
    // the name in parentheses may hold spaces: count from behind it; utime and stime are fields 14 and 15
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |place: usize| {
        fields
            .split_ascii_whitespace()
            .nth(place - 3)?
            .parse::<f64>()
            .ok()
    };
    match (ticks(14), ticks(15)) {
        (Some(user), Some(system)) => Ok((user + system) / TICKS),
        _ => Err(Trouble::no(format!(
            "/proc/{pid}/stat does not look as expected"
        ))),
    }
}

/// Bytes of memory that a process has now.
pub(super) fn memory(pid: u32) -> Result<u64, Trouble> {
    let text = read(pid, "status")?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|l| l.trim().strip_suffix("kB"))
        .and_then(|n| n.trim().parse::<u64>().ok());
    kib.map(|k| k * 1_024)
        .ok_or_else(|| Trouble::no(format!("/proc/{pid}/status does not look as expected")))
}

fn read(pid: u32, file: &str) -> Result<String, Trouble> {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(|e| {
        Trouble::no(format!(
            "process {pid} cannot be looked at: {e}; is --server-pid right?"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(
            [
                median(&[]),
                median(&[3.0]),
                median(&[9.0, 1.0, 5.0]),
                median(&[4.0, 1.0])
            ],
            [0.0, 3.0, 5.0, 2.5]
        );
    }

    #[test]
    fn rounds_take_the_median_rate_and_all_latencies() {
        let run = |answers: u64, cpu: f64| {
            let mut run = Run::new();
            for _ in 0..answers {
                run.answered(Duration::from_micros(100));
            }
            run.elapsed = Duration::from_secs(1);
            run.cpu = Some(cpu);
            run
        };
        let rounds = Rounds::of(vec![run(10, 0.1), run(30, 0.3), run(1_000, 0.1)]);
        assert!((rounds.rate - 30.0).abs() < 1e-9);
        assert_eq!(rounds.all.latencies.len(), 1_040);
        assert!((rounds.cpu_per_10k.unwrap_or_default() - 100.0).abs() < 1e-9);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn our_own_process_uses_cpu_and_memory() {
        let pid = std::process::id();
        let mut x = 1_u64;
        while cpu(pid).expect("our own process can be looked at") < 0.01 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(memory(pid).expect("our own process can be looked at") > 1 << 20);
        assert!(cpu(u32::MAX).is_err_and(|t| t.text.contains("--server-pid")));
    }
}
