//! The only place that writes: data on the standard output, talk on the standard error. Knows nothing of what it says.

use serde_json::Value;
use std::io::{IsTerminal as _, Write};
use std::sync::{Arc, Mutex};

/// Where a command speaks.
pub struct Say {
    data: Box<dyn Write + Send>,
    talk: Box<dyn Write + Send>,
    json: bool,
    terminal: bool,
}

impl Say {
    /// To the standard streams. Whether data is for programs is set by the command line that is run.
    pub fn standard() -> Say {
        Say {
            data: Box::new(std::io::stdout()),
            talk: Box::new(std::io::stderr()),
            json: false,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Into memory: what was said is in [`Said`]. Never a terminal.
    pub fn captured() -> (Say, Said) {
        let said = Said::default();
        let say = Say {
            data: Box::new(said.data.clone()),
            talk: Box::new(said.talk.clone()),
            json: false,
            terminal: false,
        };
        (say, said)
    }

    pub(super) fn for_programs(&mut self, json: bool) {
        self.json = json;
    }

    /// Whether data is wanted for programs.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether a person watches the talk, so that a progress bar makes sense.
    pub fn terminal(&self) -> bool {
        self.terminal
    }

    /// A line (or lines) of data.
    pub fn data(&mut self, text: impl std::fmt::Display) {
        // a reader that has gone (`| head`) needs nothing more; that is no failure of the command
        let _ = writeln!(self.data, "{text}");
        let _ = self.data.flush();
    }

    /// Data for programs: one JSON document, indented.
    pub fn value(&mut self, value: &Value) {
        self.data(format!("{value:#}"));
    }

    /// One of many JSON documents, a line each.
    pub fn line(&mut self, value: &Value) {
        self.data(value);
    }

    /// Something for the person at the keyboard.
    pub fn talk(&mut self, text: impl std::fmt::Display) {
        // nobody is left to be told that nobody is there
        let _ = writeln!(self.talk, "{text}");
    }
}

/// What a captured [`Say`] said.
#[derive(Clone, Default)]
pub struct Said {
    data: Buffer,
    talk: Buffer,
}

impl Said {
    /// What went to the standard output.
    pub fn data(&self) -> String {
        self.data.text()
    }

    /// What went to the standard error.
    pub fn talk(&self) -> String {
        self.talk.text()
    }
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        let bytes = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
