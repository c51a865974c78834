//! gRPC services: decode, call, encode, and nothing else.

pub mod definition;
pub mod page;
