//! Every third answer is lost on the way, of the calls that change something.

use std::collections::BTreeMap;
use std::time::Duration;

use postroom_cli::client::Client;
use postroom_cli::context::Context;
use postroom_control_plane::access::role::Role;
use postroom_control_plane::access::token::{Tokens, mint};
use postroom_control_plane::{app, config};
use postroom_proto::lease::LeaseTerms;
use postroom_proto::v1::ContactState;
use postroom_testbed::relay::{Loss, Relay};
use postroom_worker as worker;
use tokio::time::Instant;

use crate::harness::{PATIENCE, SERVICE, Stage, USER, accept, assert_each_once, contacts, take};

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_lose_and_double_nothing() {
    lose_every_third(Loss::Unavailable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_cut_off_lose_and_double_nothing() {
    lose_every_third(Loss::Cut).await;
}

async fn lose_every_third(loss: Loss) {
    let stage = Stage::set().await;
    stage.deliver(SERVICE, "a", 500).await;
    stage.deliver(USER, "b", 500).await;

    let (admin, own) = (mint().unwrap(), mint().unwrap());
    let mut tokens = Tokens::default();
    tokens.grant(&admin, Role::Admin);
    tokens.grant(&own, Role::Worker(None));
    let control_plane = app::App::start(config::Config {
        terms: LeaseTerms { heartbeat: Duration::from_millis(200), ..LeaseTerms::default() },
        deadline_interval: Duration::from_millis(200),
        store: Stage::store_of(&stage.data()).await,
        ..config::Config::new(stage.data(), "127.0.0.1:0".parse().unwrap(), tokens)
    })
    .await
    .unwrap();
    let relay = Relay::start(control_plane.address()).await.unwrap();
    let endpoint = format!("http://{}", relay.addr());
    let client = Client::new(&Context { endpoint: endpoint.clone(), ca_file: None, token: admin }, false).unwrap();
    let model = std::fs::read_to_string(stage.model_file()).unwrap();
    let model = postroom_cli::model_file::read(&model, stage.folder.path(), &|_| None).unwrap();
    client.apply_model(model).await.unwrap();

    for method in ["Report", "OpenMailboxes", "AllocateContacts", "AcceptContacts"] {
        relay.lose(method, 3, loss);
    }
    let reader = worker::app::App::start(worker::config::Config::new(&endpoint, own, "local")).unwrap();

    let mut accepted = BTreeMap::new();
    let until = Instant::now() + PATIENCE;
    while accepted.len() < 1000 {
        assert!(Instant::now() < until, "{} were accepted within {PATIENCE:?}", accepted.len());
        let taken = take(&client, 50, Duration::from_secs(1)).await;
        let outcomes = if taken.is_empty() { Vec::new() } else { accept(&client, &taken).await };
        for (contact, outcome) in taken.into_iter().zip(outcomes) {
            assert_eq!(outcome.state(), ContactState::Accepted, "{outcome:?}");
            *accepted.entry(contact.content.unwrap_or_default().subject).or_insert(0) += 1;
        }
    }
    assert_each_once(&accepted, &["a", "b"], 500);
    assert_each_once(&contacts(&client).await, &["a", "b"], 500);
    for method in ["Report", "OpenMailboxes", "AllocateContacts", "AcceptContacts"] {
        assert!(relay.calls(method).seen > 0, "{method} went through the relay");
    }
    assert!(relay.calls("Report").lost > 0 && relay.calls("AcceptContacts").lost > 0);
    reader.stop().await;
    control_plane.stop().await;
}
