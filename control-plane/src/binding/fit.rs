//! How store and ledger stand to each other. Pure.
//!
//! The ledger's fences are made of the store's revisions. So a store that is another one, or that went back in time,
//! would mint epochs below fences that stand, and no mailbox could be opened; or, worse, two ledgers would each take in
//! half of the mail. Whoever finds that must not lead.

use postroom_proto::id::MailboxUid;
use postroom_proto::v1::StoreFit;

use crate::ledger::Bound;

/// What is known of both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sides {
    /// Id of the ledger.
    pub ledger_id: String,
    /// Where the ledger belongs.
    pub bound: Bound,
    /// Id of the store; `None`: it has none.
    pub store_id: Option<String>,
    /// Id of the ledger that the store belongs to; `None`: to none yet.
    pub store_ledger: Option<String>,
    /// Newest revision of the store.
    pub revision: u64,
    /// A mailbox whose fence stands above its assignment in the store, if there is one.
    pub overtaken: Option<MailboxUid>,
}

/// How store and ledger stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// They belong together.
    Ours,
    /// Neither knows the other yet.
    New,
    /// The store is another one than the ledger's.
    Foreign {
        /// The ledger's.
        bound: String,
        /// The one at hand.
        found: String,
    },
    /// The ledger's store is gone: the one at hand has no id.
    Empty,
    /// The store stands before what the ledger has seen of it.
    Behind {
        /// What shows that.
        evidence: String,
    },
    /// The store belongs to another ledger.
    OtherLedger {
        /// The store's.
        found: String,
    },
}

/// Judges.
pub fn fit(sides: &Sides) -> Fit {
    if let Some(found) = sides.store_ledger.as_ref().filter(|found| **found != sides.ledger_id) {
        return Fit::OtherLedger { found: found.clone() };
    }
    let Some(bound) = &sides.bound.store_id else { return Fit::New };
    match &sides.store_id {
        None => Fit::Empty,
        Some(found) if found != bound => Fit::Foreign { bound: bound.clone(), found: found.clone() },
        Some(_) => behind(sides).map_or(Fit::Ours, |evidence| Fit::Behind { evidence }),
    }
}

fn behind(sides: &Sides) -> Option<String> {
    let Sides { bound: Bound { highest_epoch, .. }, revision, overtaken, .. } = sides;
    if highest_epoch > revision {
        return Some(format!("the ledger has seen epoch {highest_epoch}, and the store is at revision {revision}"));
    }
    // Found only when the restore has raised the revision, as `--bump-revision` of etcd does.
    overtaken.as_ref().map(|mailbox| format!("the lease of {mailbox} in the store is older than one that was in use"))
}

impl Fit {
    /// True when mailboxes may be leased.
    pub fn may_lead(&self) -> bool {
        matches!(self, Self::Ours)
    }

    /// The same for the wire.
    pub fn wire(&self) -> StoreFit {
        match self {
            Self::Ours | Self::New => StoreFit::Ours,
            Self::Foreign { .. } => StoreFit::Foreign,
            Self::Empty => StoreFit::Empty,
            Self::Behind { .. } => StoreFit::Behind,
            Self::OtherLedger { .. } => StoreFit::OtherLedger,
        }
    }

    /// What is wrong, and what to do about it. `None`: nothing.
    pub fn trouble(&self) -> Option<(String, &'static str)> {
        Some(match self {
            Self::Ours | Self::New => return None,
            Self::Foreign { bound, found } => (
                format!("the store is {found}, and the ledger belongs to store {bound}"),
                "if the settings name the wrong store or the wrong data folder, mend them; if the store was meant to \
                 be exchanged, run `postroom store adopt`",
            ),
            Self::Empty => (
                "the store holds nothing of this installation, though the ledger belongs to one that did".into(),
                "if the settings name the wrong store or prefix, mend them; if the store was lost and a backup of it \
                 can be restored, do that first; then run `postroom store adopt`, and apply the model if it is gone",
            ),
            Self::Behind { evidence } => (
                format!("the store was restored from a backup: {evidence}"),
                "run `postroom store adopt`: mailboxes are leased anew and go on at their cursors; then look whether \
                 the definitions are as they should be, by `postroom history`",
            ),
            Self::OtherLedger { found } => (
                format!("the store belongs to another ledger, {found}, which another control plane may be using"),
                "with a SQLite ledger one control plane uses a store: stop the other one, or name another prefix. If \
                 that ledger is lost for good, run `postroom store adopt`: mail is then read by the start policy of \
                 each queue, as if for the first time",
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use postroom_proto::id::Generation;

    use super::*;

    fn sides() -> Sides {
        Sides {
            ledger_id: "ledger-1".into(),
            bound: Bound { store_id: Some("store-1".into()), generation: Generation(1), highest_epoch: 20 },
            store_id: Some("store-1".into()),
            store_ledger: Some("ledger-1".into()),
            revision: 20,
            overtaken: None,
        }
    }

    #[test]
    fn a_store_and_its_ledger_fit() {
        assert_eq!(fit(&sides()), Fit::Ours);
        assert_eq!(fit(&Sides { store_ledger: None, ..sides() }), Fit::Ours, "of a version that did not record it");
        assert!(Fit::Ours.may_lead() && Fit::Ours.trouble().is_none());
    }

    #[test]
    fn two_that_are_new_find_each_other() {
        let bound = Bound { store_id: None, generation: Generation(1), highest_epoch: 0 };
        let new = Sides { bound, store_id: None, store_ledger: None, revision: 0, ..sides() };
        assert_eq!(fit(&new), Fit::New);
        assert_eq!(fit(&Sides { store_id: Some("store-1".into()), ..new.clone() }), Fit::New, "a named store");
        let half = Sides { store_ledger: Some("ledger-1".into()), ..new.clone() };
        assert_eq!(fit(&half), Fit::New, "the store was told, the ledger not yet");
        let taken = Sides { store_ledger: Some("ledger-2".into()), ..new };
        assert_eq!(fit(&taken), Fit::OtherLedger { found: "ledger-2".into() });
        assert!(!Fit::New.may_lead(), "only once it is written down");
    }

    #[test]
    fn what_was_exchanged_emptied_or_restored_is_refused_with_a_remedy() {
        let foreign = fit(&Sides { store_id: Some("store-2".into()), store_ledger: None, ..sides() });
        assert_eq!(foreign, Fit::Foreign { bound: "store-1".into(), found: "store-2".into() });
        let empty = fit(&Sides { store_id: None, store_ledger: None, revision: 500, ..sides() });
        assert_eq!(empty, Fit::Empty);
        let restored = fit(&Sides { revision: 19, ..sides() });
        assert_eq!(restored.wire(), StoreFit::Behind);
        let mailbox = MailboxUid::derive("a@x.example", "INBOX", "x.example");
        let bumped = fit(&Sides { revision: 1_000_000_000, overtaken: Some(mailbox), ..sides() });
        assert_eq!(bumped.wire(), StoreFit::Behind);
        let other = fit(&Sides { store_ledger: Some("ledger-2".into()), ..sides() });
        for fit in [foreign, empty, restored, bumped, other] {
            let (cause, remedy) = fit.trouble().unwrap();
            assert!(!fit.may_lead() && !cause.is_empty() && remedy.contains("`postroom store adopt`"), "{fit:?}");
        }
    }
}
