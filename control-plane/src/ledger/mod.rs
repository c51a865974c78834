//! The record of every message ever seen.
