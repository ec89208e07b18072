//! The limits that the rules themselves hold, each with its name. Meeting one is an answer, never a wait and never a
//! panic. Limits of the language (sizes of a journey's text) stand with `compile`.

use crate::time::Span;

/// Automatic moves that may follow one another before the execution is left where it stands, with an incident.
pub const MOVES_IN_A_ROW: u32 = 64;

/// Signals that may wait while an execution is held.
pub const WAITING_SIGNALS: usize = 1_000;

/// Bytes of signals that may wait while an execution is held, as [`crate::signal::Signal::weight`] counts them.
pub const WAITING_BYTES: usize = 256 * 1024;

/// Bytes of one fact's value, as [`crate::value::Value::weight`] counts them.
pub const FACT_BYTES: usize = 4 * 1024;

/// Levels that a value may nest which an execution or a customer record takes in: a fact, a variable, a kept value, an
/// attribute. What is stored is read with a limit of 100 levels of messages, and one level of a list takes two of
/// those, one of a map three: a value beyond this limit could be written and never be read again. The data of a signal
/// stays JSON wherever it is stored and may nest as deep as [`crate::value::MAX_JSON_DEPTH`].
pub const VALUE_DEPTH: usize = 16;

/// Bytes of all facts, variables and kept values of one execution, names included, as
/// [`crate::value::Value::weight`] counts them.
pub const STATE_BYTES: usize = 64 * 1024;

/// Actions that one execution may owe at a time.
pub const OWED_ACTIONS: usize = 256;

/// Bytes of the bodies of all actions that one execution may owe at a time.
pub const OWED_BYTES: usize = 1024 * 1024;

/// Failed actions that one execution keeps until they are retried or skipped by hand. Beyond it the one that failed
/// first is skipped, which its timeline says.
pub const FAILED_ACTIONS: usize = 64;

/// Bytes of the bodies of all failed actions that one execution keeps; beyond it as with [`FAILED_ACTIONS`].
pub const FAILED_BYTES: usize = 256 * 1024;

/// Bytes of one rendered body of an action.
pub const ACTION_BYTES: usize = 64 * 1024;

/// Attributes of one customer.
pub const ATTRIBUTES: usize = 64;

/// Bytes of all attributes of one customer, names included.
pub const ATTRIBUTE_BYTES: usize = 8 * 1024;

/// Identifiers kept of one customer.
pub const CUSTOMER_IDENTIFIERS: usize = 64;

/// Identifiers that one signal may carry.
pub const SIGNAL_IDENTIFIERS: usize = 16;

/// Bytes of the name of an identifier.
pub const IDENTIFIER_NAME_BYTES: usize = 64;

/// Bytes of the value of an identifier, after normalising.
pub const IDENTIFIER_VALUE_BYTES: usize = 256;

/// Bytes of a signal's id.
pub const SIGNAL_ID_BYTES: usize = 128;

/// Bytes of a signal's type or source.
pub const SIGNAL_TYPE_BYTES: usize = 128;

/// Bytes of a signal's data.
pub const SIGNAL_DATA_BYTES: usize = 256 * 1024;

/// Bytes of an instance key.
pub const INSTANCE_KEY_BYTES: usize = 256;

/// Active executions of one customer.
pub const ACTIVE_EXECUTIONS: usize = 100;

/// Runs that the record of one customer remembers, active and ended. Beyond it the one that ended first is forgotten;
/// those that are active stay ([`ACTIVE_EXECUTIONS`]).
pub const RUNS: usize = 200;

/// Signals that one pattern keeps of one visit.
pub const PATTERN_SIGNALS: usize = 64;

/// How long the id of a signal is remembered where nobody says otherwise.
pub const DEDUP_WINDOW: Span = Span::from_seconds(7 * 86_400);

/// The kinds of actions that are done. All others are recorded and end at once as `skipped: not connected`.
pub const CONNECTED_ACTIONS: [&str; 2] = ["webhook", "log"];

/// First parts of a signal type that stand for something else in an expression.
pub const RESERVED_APPLICATIONS: [&str; 6] =
    ["signal", "customer", "vars", "execution", "now", "action"];
