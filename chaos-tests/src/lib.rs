//! `chaos-tests`: see ARCHITECTURE.md.
