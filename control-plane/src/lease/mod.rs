//! Who reads which mailbox.
//!
//! [`plan`] decides who should hold what, [`desk`] how to get there without two holders at once; both are pure.
//! [`run`] is the shell around them: it takes office ([`leader`], `campaign`), answers ([`handle`]) and carries out what the desk intends.
//! What stands in the store is spelled out in [`record`] and [`decision`]; workers hear of it sooner by [`nudge`].

mod campaign;
pub mod decision;
pub mod desk;
mod following;
pub mod handle;
pub mod leader;
pub mod nudge;
pub mod nudging;
pub mod plan;
pub mod profile;
pub mod record;
pub mod run;
mod term;
mod writing;
