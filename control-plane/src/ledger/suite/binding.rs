//! Whose store a ledger belongs to.

use postroom_proto::id::{Epoch, Generation};

use super::{fence, mailbox};
use crate::ledger::{Bound, Fence, Ledger};

pub(crate) async fn a_ledger_belongs_to_its_first_store_until_another_is_adopted(ledger: impl Ledger) {
    assert_eq!(ledger.bound().await.unwrap(), Bound { store_id: None, generation: Generation(1), highest_epoch: 0 });
    for store in ["store-1", "store-2"] {
        ledger.bind(store).await.unwrap();
        assert_eq!(ledger.bound().await.unwrap().store_id.as_deref(), Some("store-1"));
    }
    let uid = mailbox("a@x.example");
    ledger.open(&uid, &fence(20, "s1")).await.unwrap().unwrap();
    assert_eq!(ledger.bound().await.unwrap().highest_epoch, 20);
    assert_eq!(ledger.fences().await.unwrap(), [(uid.clone(), Epoch(20))]);

    assert_eq!(ledger.adopt(Generation(2), "store-2", "ada", 7).await.unwrap(), None, "somebody else was quicker");
    assert_eq!(ledger.adoptions(5).await.unwrap(), []);
    assert_eq!(ledger.adopt(Generation(1), "store-2", "ada", 7).await.unwrap(), Some(Generation(2)));
    let bound = ledger.bound().await.unwrap();
    assert_eq!((bound.store_id.as_deref(), bound.generation, bound.highest_epoch), (Some("store-2"), Generation(2), 0));
    assert_eq!(ledger.fences().await.unwrap(), []);
    let second = Fence { generation: Generation(2), ..fence(3, "s2") };
    assert!(ledger.open(&uid, &second).await.unwrap().is_some(), "a low epoch of a later generation is above");
    assert_eq!(ledger.open(&uid, &fence(21, "s1")).await.unwrap(), None, "a high one of an earlier is below");

    ledger.adopt(Generation(2), "store-2", "bob", 9).await.unwrap().unwrap();
    let adoptions = ledger.adoptions(5).await.unwrap();
    let told: Vec<_> = adoptions.iter().map(|it| (it.time, it.by.as_str(), it.generation.0)).collect();
    assert_eq!(told, [(9, "bob", 3), (7, "ada", 2)]);
    assert_eq!(adoptions[1].former_store_id.as_deref(), Some("store-1"));
}
