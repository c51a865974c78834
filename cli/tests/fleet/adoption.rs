//! Stores that are not the ledger's any more: refused until somebody has looked, then adopted, and nothing is read twice.

use std::process::Command;

use postroom_cli::client::Client;
use postroom_cli::context::Context;
use postroom_control_plane::config::StoreChoice;
use postroom_proto::v1::{self, StoreFit};

use crate::audit::contact_count;
use crate::harness::eventually;
use crate::scale::{Scale, Terms};
use crate::scenario::Fleet;
use crate::store::Store;

impl Fleet {
    /// Waits until the store is refused, as everybody sees who asks how things are.
    async fn refused(&self, fit: StoreFit) {
        let client = self.client();
        eventually("the store is refused", || async {
            let Ok(status) = client.get_status().await else { return false };
            let concern = status.concerns.iter().find(|concern| concern.code == "STORE_NOT_OURS");
            concern.is_some_and(|concern| concern.remedy.contains("`postroom store adopt`"))
        })
        .await;
        assert_eq!(client.get_store().await.unwrap().fit(), fit);
        let shown = self.postroom(&["store", "show"]);
        assert_eq!(shown.status.code(), Some(9), "{shown:?}");
    }

    /// Adopts the store as a person would.
    fn adopt(&self) {
        let adopted = self.postroom(&["store", "adopt", "--yes"]);
        assert!(adopted.status.success(), "{adopted:?}\n{}", self.logs());
    }

    fn postroom(&self, args: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_postroom")).arg("--data").arg(self.stage.data()).args(args).output().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_restored_emptied_or_exchanged_is_adopted_and_nothing_is_read_twice() {
    let mut fleet = Fleet::start(Scale::of(20), Terms::Short, 1, &["one", "two", "three"]).await;
    let saved = fleet.stage.folder.path().join("etcd.db");
    fleet.store.etcd.save(&saved).await.unwrap();
    // What the snapshot does not know: other leases, under higher epochs, and a leader of a much later term, while it knows
    // two of the sessions.
    fleet.worker("one").stop().await;
    fleet.read_by(|worker| worker != "one").await;
    for _ in 0..10 {
        fleet.client().freeze_workers("so that there is history".into(), None).await.unwrap();
        fleet.client().unfreeze_workers().await.unwrap();
    }
    fleet.kill_plane();
    fleet.start_plane().await;
    fleet.start_worker("one");
    fleet.registered("one", 2).await;
    fleet.mail_flows().await;

    fleet.store.etcd.restore(&saved).await.unwrap();
    fleet.refused(StoreFit::Behind).await;
    fleet.adopt();
    fleet.mail_flows().await;
    fleet.all_read().await;

    fleet.store.etcd.wipe().await.unwrap();
    fleet.refused(StoreFit::Empty).await;
    fleet.adopt();
    let model = fleet.model();
    fleet.plane().apply(&model).await;
    fleet.mail_flows().await;
    fleet.all_read().await;

    // Another etcd, which nobody has used.
    fleet.kill_plane();
    fleet.store = Store::start(1).await;
    fleet.start_plane().await;
    fleet.refused(StoreFit::Empty).await;
    fleet.adopt();
    fleet.plane().apply(&model).await;
    fleet.mail_flows().await;
    fleet.all_read().await;
    fleet.finish("a store restored, emptied and exchanged").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_machine_moves_to_etcd_with_its_definitions_tokens_and_cursors() {
    let mut fleet = Fleet::bare(Scale::of(20), Terms::Short, 1).await;
    let model = fleet.stage.model_file();
    std::fs::write(&model, fleet.model()).unwrap();
    let up = fleet.stage.up_over(&StoreChoice::Sqlite, &fleet.stage.data(), Some(&model)).await;
    fleet.send();
    let client = up.client();
    eventually("mail is read", || async { contact_count(&client).await >= Some(200) }).await;
    let token = v1::CreateTokenRequest { name: "ada".into(), role: "viewer".into(), ..Default::default() };
    let token = client.create_token(token).await.unwrap().token;
    up.kill();

    fleet.start_plane().await;
    fleet.refused(StoreFit::Empty).await;
    fleet.adopt();
    let data = fleet.stage.data();
    let ada = Client::new(&Context { token: token.into(), ..Context::read(&data).unwrap() }, false).unwrap();
    eventually("the token of before is known", || async { ada.get_status().await.is_ok() }).await;
    for name in ["one", "two", "three"] {
        fleet.add_worker(name, &[]).await;
    }
    fleet.mail_flows().await;
    fleet.finish("one machine moved to etcd").await;
}
