//! `client`: see ARCHITECTURE.md.
