//! Who reads which mailbox.
//!
//! [`plan`] decides who should hold what, [`desk`] how to get there without two holders at once; both are pure.
//! [`leader`] and [`run`] are the shell around them.

pub mod desk;
pub mod leader;
pub mod plan;
pub mod run;
