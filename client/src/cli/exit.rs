//! How a command ends: design.md §7. Knows no command.

use crate::error::{Code, Error};
use crate::input::OpenError;
use std::process::ExitCode;

/// How a command ended, as the shell sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Answered, and the answer is no.
    No,
    /// The command line is wrong.
    Usage,
    /// It may have been done.
    Unknown,
    /// No server was reached in time, or it had too much to do.
    Unreachable,
    /// A defect of ours.
    Bug,
    /// Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::No => 1,
            Exit::Usage => 2,
            Exit::Unknown => 3,
            Exit::Unreachable => 4,
            Exit::Bug => 70,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// Why a command stopped: what is said, and how it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub exit: Exit,
    pub text: String,
}

impl Trouble {
    pub fn new(exit: Exit, text: impl Into<String>) -> Trouble {
        Trouble {
            exit,
            text: text.into(),
        }
    }

    pub fn no(text: impl Into<String>) -> Trouble {
        Trouble::new(Exit::No, text)
    }

    pub fn usage(text: impl Into<String>) -> Trouble {
        Trouble::new(Exit::Usage, text)
    }

    /// A query that failed: nothing can be in doubt, for nothing was to be changed.
    pub fn reading(error: Error) -> Trouble {
        let exit = match error.code() {
            Code::Unreachable | Code::Overloaded | Code::Deadline => Exit::Unreachable,
            Code::Internal => Exit::Bug,
            _ => Exit::No,
        };
        Trouble::new(exit, told(&error))
    }
}

impl From<Error> for Trouble {
    /// A command that failed.
    fn from(error: Error) -> Trouble {
        if error.is_unknown() {
            let text = format!(
                "outcome unknown: {}; look before you do it again",
                told(&error)
            );
            return Trouble::new(Exit::Unknown, text);
        }
        Trouble::reading(error)
    }
}

impl From<OpenError> for Trouble {
    /// A mapping that does not fit its file is a wrong command line.
    fn from(error: OpenError) -> Trouble {
        match error {
            OpenError::File(text) => Trouble::no(text),
            OpenError::Mapping(text) => Trouble::usage(text),
        }
    }
}

/// The error as a person should read it.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    if text.is_empty() {
        text = format!("the server said {} and nothing more", error.code().word());
    }
    match error.retry_after() {
        Some(after) if error.code() == Code::Overloaded => {
            format!(
                "{text}; it asks to be left alone for {:.1} s",
                after.as_secs_f64()
            )
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_exit_codes() {
        let cases = [
            (Error::new(Code::Unreachable, "x"), Exit::Unreachable),
            (Error::new(Code::Overloaded, "x"), Exit::Unreachable),
            (Error::new(Code::Deadline, "x").unknown(), Exit::Unknown),
            (Error::new(Code::NotFound, "x"), Exit::No),
            (Error::new(Code::Invalid, "x"), Exit::No),
            (Error::new(Code::Internal, "x"), Exit::Bug),
            (Error::new(Code::Internal, "x").unknown(), Exit::Unknown),
        ];
        for (error, exit) in cases {
            assert_eq!(Trouble::from(error.clone()).exit, exit, "{error:?}");
        }
        let text = || "x".to_owned();
        assert_eq!(Trouble::from(OpenError::Mapping(text())).exit, Exit::Usage);
        assert_eq!(Trouble::from(OpenError::File(text())).exit, Exit::No);
        assert_eq!(
            Trouble::reading(Error::new(Code::Deadline, "x").unknown()).exit,
            Exit::Unreachable
        );
    }
}
