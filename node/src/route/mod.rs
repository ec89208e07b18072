//! From any node one hop to the owner: connections to the doors of the other nodes ([`ways`]), signals that wait for
//! their owner ([`lines`]) and their streams ([`lane`]), and everything else as calls ([`call`], [`seek`]).
//!
//! Who the owner is, is a hint: the owner itself refuses what is not its, and a call that was handed over once is not
//! handed over again. It does not know what a signal means, nor what a call answers.

pub mod call;
mod lane;
pub mod lines;
pub mod seek;
pub mod ways;
