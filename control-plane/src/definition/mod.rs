//! Definitions: what an operator wants.
