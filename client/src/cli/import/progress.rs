//! A progress bar for the person who waits: rows, rate, remaining time. Only on a terminal, and only on the standard
//! error.

use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shows how far a file is.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    began: Instant,
    rows: u64,
    read: Arc<AtomicU64>,
}

impl Progress {
    /// A bar over the bytes of the file where its size is known, else a count.
    pub fn new(visible: bool, name: &str, size: Option<u64>, read: Arc<AtomicU64>) -> Progress {
        let bar = visible.then(|| {
            let (bar, template) = match size {
                Some(size) => (
                    ProgressBar::new(size),
                    "{prefix} [{bar:30}] {percent}% {msg}, {eta} to go",
                ),
                None => (ProgressBar::new_spinner(), "{prefix} {spinner} {msg}"),
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Progress {
            bar,
            began: Instant::now(),
            rows: 0,
            read,
        }
    }

    /// One more row has its answer.
    pub fn row(&mut self) {
        self.rows += 1;
        if let Some(bar) = &self.bar
            && self.rows.is_multiple_of(256)
        {
            let rate = self.rows as f64 / self.began.elapsed().as_secs_f64().max(0.001);
            bar.set_position(self.read.load(Ordering::Relaxed));
            bar.set_message(format!(
                "{} rows, {rate:.0}/s",
                crate::cli::show::count(self.rows)
            ));
        }
    }

    /// Rows in this run.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How long this run has taken.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
