//! `signal import`: files of signals into a server, many at once, in order for each customer, to the last row.
//!
//! Rows are handed to the SDK in the order of the file and their answers are taken in that order, so "every row up to
//! this one has its answer" is one number. The SDK keeps the order of each customer and repeats what a broken
//! connection left open.

mod progress;
mod resume;
pub(super) mod summary;

use super::exit::{Exit, Trouble};
use super::mapping::MappingArgs;
use super::{GlobalOpts, Say, args, show};
use crate::client::{Client, DEADLINE_MAX, Pending};
use crate::error::Code;
use crate::input::{Mapping, Reader, RowError};
use crate::receipt::Outcome;
use crate::signal::Signal;
use progress::Progress;
use resume::Resume;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use summary::{Failed, Summary};

/// Rows read ahead of the answers: more than the stream's window, so that it is full although of each customer only one
/// signal is under way.
const AHEAD: usize = 8_192;
/// Bytes of them: less than the SDK holds, so that handing over never waits.
const AHEAD_BYTES: usize = 32 << 20;
/// How often it is written down where the import stands.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// `sojourn signal import FILE…`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// CSV with a header, or JSON Lines of CloudEvents 1.0; plain or gzipped; - for the standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    mapping: MappingArgs,
    /// End at the first row that fails
    #[arg(long)]
    strict: bool,
    /// How long to wait for a server that does not answer, at most 60s
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = args::duration)]
    patience: Duration,
    /// Where to keep how far the import is [default: FILE.sojourn-import]
    #[arg(long, value_name = "FILE", conflicts_with = "no_resume")]
    resume: Option<PathBuf>,
    /// Keep no such file, and do not look for one
    #[arg(long)]
    no_resume: bool,
}

/// Why an import of a file ended.
enum End {
    /// All rows have an answer.
    Complete,
    /// Ctrl-C.
    Interrupted,
    /// It cannot go on.
    Stopped(Trouble),
}

pub(super) async fn run(
    args: &ImportArgs,
    global: &GlobalOpts,
    say: &mut Say,
) -> Result<Exit, Trouble> {
    if args.resume.is_some() && args.files.len() > 1 {
        return Err(Trouble::usage(
            "--resume names one state file; import several files one by one, or leave it out",
        ));
    }
    let mapping = args.mapping.mapping()?;
    if args.patience.is_zero() || args.patience > DEADLINE_MAX {
        return Err(Trouble::usage(
            "--patience is out of range, expected more than 0 and at most 60s",
        ));
    }
    // connects once to say at once when nobody is there; later breaks are waited for
    let client = global.client().await?;
    let mut total = Summary::default();
    let mut files = Vec::new();
    let mut exit = Exit::Done;
    for path in &args.files {
        let (summary, end) = file(&client, path, args, &mapping, say).await?;
        if args.files.len() > 1 && !say.json() {
            say.data(format_args!("{}\n{}\n", path.display(), summary.text()));
        }
        let mut value = summary.json();
        value["file"] = path.display().to_string().into();
        value["complete"] = matches!(end, End::Complete).into();
        files.push(value);
        total.merge(summary);
        match end {
            End::Complete => {}
            End::Interrupted => exit = Exit::Interrupted,
            End::Stopped(trouble) => {
                say.talk(format_args!("error: {}", trouble.text));
                exit = trouble.exit;
            }
        }
        if exit != Exit::Done {
            break;
        }
    }
    if say.json() {
        let mut value = total.json();
        value["files"] = files.into();
        say.value(&value);
    } else {
        say.data(total.text());
    }
    if exit == Exit::Done && total.failures() > 0 {
        exit = Exit::No;
    }
    Ok(exit)
}

/// A row on its way.
struct Row {
    number: u64,
    line: u64,
    bytes: usize,
    answer: Answer,
}

enum Answer {
    Pending(Pending),
    Bad(RowError),
}

async fn file(
    client: &Client,
    path: &Path,
    args: &ImportArgs,
    mapping: &Mapping,
    say: &mut Say,
) -> Result<(Summary, End), Trouble> {
    let mut reader = Reader::open(path, mapping)?;
    let stateless = args.no_resume || path.as_os_str() == "-";
    let mut resume = if stateless {
        None
    } else {
        Some(Resume::open(
            path,
            args.resume.as_deref(),
            mapping,
            client.workspace(),
        )?)
    };
    let mut summary = Summary::default();
    if let Some(resume) = resume.as_ref().filter(|r| r.state.rows > 0) {
        say.talk(format_args!(
            "{}: goes on after row {}, as {} says",
            path.display(),
            show::count(resume.state.rows),
            resume.path().display()
        ));
        let rows = resume.state.rows;
        let skipped = reader
            .skip_rows(rows)
            .map_err(|e| Trouble::no(format!("{}: {e}", path.display())))?;
        if skipped < rows {
            return Err(Trouble::no(format!(
                "{}: it has {skipped} rows, but {} says that {rows} were imported; delete that file to import from the \
                 start, which is safe",
                path.display(),
                resume.path().display()
            )));
        }
        summary = resume.state.summary.clone();
    }
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut progress = Progress::new(
        say.terminal() && !say.json(),
        &name,
        reader.size(),
        reader.counter(),
    );
    let mut rows = Rows {
        client,
        args,
        summary,
        resume: resume.as_mut(),
        saved: Instant::now(),
    };
    let end = rows.all(&mut reader, &mut progress).await;
    progress.end();
    let summary = rows.summary;
    if let Some(resume) = &mut resume {
        resume.state.summary.clone_from(&summary);
    }
    let seconds = progress.elapsed().as_secs_f64();
    say.talk(format_args!(
        "{name}: {} rows in {seconds:.1} s, {} per second",
        show::count(progress.rows()),
        show::count((progress.rows() as f64 / seconds.max(0.001)) as u64)
    ));
    let end = match (end, &mut resume) {
        (End::Complete, Some(resume)) => resume
            .forget()
            .map_or_else(End::Stopped, |()| End::Complete),
        (end @ (End::Interrupted | End::Stopped(_)), Some(resume)) => {
            resume.save()?;
            say.talk(format_args!(
                "every row up to {} has its answer; the same command goes on from there",
                show::count(resume.state.rows)
            ));
            end
        }
        (end @ (End::Interrupted | End::Stopped(_)), None) => {
            say.talk("the same command again is safe: what has arrived is answered as a duplicate");
            end
        }
        (end @ End::Complete, None) => end,
    };
    Ok((summary, end))
}

/// No deadline for the single signal: the import has a patience of its own, and a signal given up while the next of its
/// customer still goes would turn their order round.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(365 * 86_400)
}

struct Rows<'a> {
    client: &'a Client,
    args: &'a ImportArgs,
    summary: Summary,
    resume: Option<&'a mut Resume>,
    saved: Instant,
}

impl Rows<'_> {
    async fn all(&mut self, reader: &mut Reader, progress: &mut Progress) -> End {
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        let mut ahead: VecDeque<Row> = VecDeque::new();
        let mut more = true;
        let mut bytes = 0;
        loop {
            while more && ahead.len() < AHEAD && bytes < AHEAD_BYTES {
                match reader.next_row() {
                    Ok(None) => more = false,
                    Err(e) => {
                        // what is under way is still waited for below; the file itself cannot be read on
                        let end = self.drain(&mut ahead, progress).await;
                        return match end {
                            End::Complete => End::Stopped(Trouble::no(e)),
                            other => other,
                        };
                    }
                    Ok(Some(row)) => {
                        let size = row.signal.as_ref().map_or(0, Signal::size);
                        let answer = match row.signal {
                            Err(e) => Answer::Bad(e),
                            Ok(signal) => match self.client.enqueue_until(signal, far()).await {
                                Ok(pending) => Answer::Pending(pending),
                                Err(e) => return End::Stopped(Trouble::from(e)),
                            },
                        };
                        bytes += size;
                        ahead.push_back(Row {
                            number: row.number,
                            line: row.line,
                            bytes: size,
                            answer,
                        });
                    }
                }
                // a server that answers is read from as soon as it does, not when 8,192 rows have been read
                if ahead.len().is_multiple_of(256) {
                    tokio::task::yield_now().await;
                }
            }
            let Some(row) = ahead.pop_front() else {
                return End::Complete;
            };
            bytes -= row.bytes;
            let taken = tokio::select! {
                biased;
                _ = &mut interrupt => return End::Interrupted,
                taken = self.take(row) => taken,
            };
            if let Err(trouble) = taken {
                return End::Stopped(trouble);
            }
            progress.row();
        }
    }

    async fn drain(&mut self, ahead: &mut VecDeque<Row>, progress: &mut Progress) -> End {
        while let Some(row) = ahead.pop_front() {
            if let Err(trouble) = self.take(row).await {
                return End::Stopped(trouble);
            }
            progress.row();
        }
        End::Complete
    }

    fn out_of_patience(&self, row: u64) -> Trouble {
        let why = self.client.trouble().map_or_else(
            || "the server does not answer".to_owned(),
            |e| e.to_string(),
        );
        let seconds = self.args.patience.as_secs_f64();
        Trouble::new(
            Exit::Unreachable,
            format!("row {row}: no answer within {seconds} s: {why}"),
        )
    }

    /// Waits for the answer of the next row in the order of the file, and counts it.
    async fn take(&mut self, row: Row) -> Result<(), Trouble> {
        let failed = |error: RowError| Failed {
            row: row.number,
            line: row.line,
            column: error.column,
            message: error.message,
        };
        let bad = match row.answer {
            Answer::Bad(error) => Some(failed(error)),
            Answer::Pending(pending) => {
                let Ok(answer) = tokio::time::timeout(self.args.patience, pending).await else {
                    return Err(self.out_of_patience(row.number));
                };
                match answer {
                    Ok(Outcome::Done(receipt)) => {
                        self.summary.done(receipt.word(), receipt.first_word());
                        None
                    }
                    Ok(Outcome::Refused(error)) if error.code() == Code::Denied => {
                        return Err(Trouble::from(error));
                    }
                    Ok(Outcome::Refused(error)) => Some(failed(RowError {
                        column: String::new(),
                        message: error.to_string(),
                    })),
                    // the import stops in order: this row and those behind it are sent again next time
                    Ok(Outcome::Unknown(error)) | Err(error) => {
                        let mut trouble = Trouble::from(error);
                        trouble.text = format!("row {}: {}", row.number, trouble.text);
                        return Err(trouble);
                    }
                }
            }
        };
        if let Some(failed) = bad {
            if self.args.strict {
                let place = if failed.column.is_empty() {
                    String::new()
                } else {
                    format!(", column {}", failed.column)
                };
                let text = format!(
                    "row {} (line {}{place}): {}",
                    failed.row, failed.line, failed.message
                );
                return Err(Trouble::no(text));
            }
            self.summary.failed(failed);
        }
        if let Some(resume) = &mut self.resume {
            resume.state.rows = row.number;
            if self.saved.elapsed() >= SAVE_EVERY {
                resume.state.summary.clone_from(&self.summary);
                resume.save()?;
                self.saved = Instant::now();
            }
        }
        Ok(())
    }
}
