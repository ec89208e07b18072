//! Stories told to real processes: signals over real sockets, kill -9 at bad moments, and then the promises are
//! checked. One binary for all of them; the seed of what is random is printed, and `SOJOURN_SEED` sets it.

mod actions;
mod by_hand;
mod customers;
mod deactivated;
mod endpoints;
mod failed;
mod hands;
mod hostile_cases;
mod hostile_journeys;
mod hostile_requests;
mod hostile_signals;
mod kept;
mod loan;
mod order;
mod restarts;
mod rough;
mod several;
mod several_apart;
mod several_commands;
mod several_loan;
mod several_moves;
mod several_restarts;
mod several_stopped;
mod stopping;
mod support;
mod timers;
mod why;
mod worlds;
