//! gRPC services: decode, call, encode, and nothing else.

pub mod backup;
pub mod contact;
pub mod definition;
pub mod errand;
pub mod large;
pub mod lease;
pub mod message;
pub mod operator;
pub mod page;
pub mod report;
pub mod store;
pub mod worker;
