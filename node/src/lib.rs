//! `node`: see ARCHITECTURE.md.
