//! Large message bodies, outside the ledger.
