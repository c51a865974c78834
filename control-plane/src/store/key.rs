//! Names of the keys in the store. No other file spells one.
