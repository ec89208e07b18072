//! The rules, as tables: given a journey, when this happens, then these events.
//! Every sentence of the language's page that says what a signal, a time or a command does has a case here.

mod actions;
mod by_hand;
mod catalog;
mod customer;
mod entry;
mod failed;
mod helper;
mod properties;
mod rhythm;
mod signals;
mod simulation;
mod time;
mod tour;
