//! Who reads which mailbox.
//!
//! [`plan`] decides who should hold what, [`desk`] how to get there without two holders at once; both are pure.
//! [`run`] is the shell around them: it leads ([`leader`]), answers ([`handle`]) and carries out what the desk intends.

pub mod desk;
pub mod handle;
pub mod leader;
pub mod nudge;
pub mod plan;
pub mod record;
pub mod run;
mod term;
mod writing;
