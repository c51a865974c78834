//! Outgoing servers, and who may be a sender.

use super::*;

const GUID: &str = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";

fn outgoing(name: &str, authentication: v1::OutgoingAuthentication) -> v1::OutgoingServer {
    v1::OutgoingServer { name: name.into(), authentication: authentication.into(), ..Default::default() }
}

fn shared() -> v1::OutgoingServer {
    v1::OutgoingServer {
        user: GUID.into(),
        registration: NAME.into(),
        ..outgoing("Office 365", v1::OutgoingAuthentication::OauthService)
    }
}

fn with(servers: Vec<v1::OutgoingServer>) -> v1::Model {
    v1::Model { outgoing_servers: servers, ..sample() }
}

#[tokio::test]
async fn an_outgoing_server_is_stored_shown_and_keeps_its_secrets() {
    let store = store().await;
    let definitions = definitions(&store).await;
    let own = v1::OutgoingServer {
        server: TENANT.into(),
        user: "ada@contoso.example".into(),
        client_id: "client".into(),
        password: secret("planted-sending"),
        ..outgoing("by user", v1::OutgoingAuthentication::OauthUser)
    };
    apply_model(&definitions, with(vec![shared(), own])).await.unwrap();
    let shown = wire::model(&Definitions::load(Arc::clone(&store)).await.unwrap().model());
    let [shared, own] = shown.outgoing_servers.as_slice() else { panic!("{shown:?}") };
    assert_eq!((shared.enabled, shared.registration.as_str(), shared.secret_set), (Some(true), NAME, false));
    assert_eq!((own.password_set, own.transport()), (true, v1::Transport::Unspecified));
    assert!(!format!("{shown:?}").contains("planted"));
    let again = apply_model(&definitions, shown).await.unwrap();
    assert_eq!((again.revision, again.changes.len()), (1, 0));

    // Cleared, it is missed; with another way to sign in, it is forgotten.
    let mut model = wire::model(&definitions.model());
    model.outgoing_servers[1].password = Some(v1::SecretInput { value: String::new(), clear: true });
    assert_eq!(faults(&definitions, model.clone()).await[0].field, "outgoingServers[1].password");
    model.outgoing_servers[1].authentication = v1::OutgoingAuthentication::OauthService.into();
    model.outgoing_servers[1].secret = secret("planted-secret");
    let changed = apply_model(&definitions, model).await.unwrap();
    let told: Vec<_> = changed.changes[0].fields.iter().map(|it| (it.field.as_str(), it.new_value.as_str())).collect();
    assert_eq!(told, [("authentication", "oauth-service"), ("password", ""), ("secret", "set")]);
}

#[tokio::test]
async fn all_faults_of_outgoing_servers_are_told() {
    use v1::OutgoingAuthentication::{None as Nobody, OauthService, OauthUser, Password};
    let definitions = definitions(&store().await).await;
    let found = faults(
        &definitions,
        with(vec![
            v1::OutgoingServer { authentication: 77, transport: 9, ..outgoing("a", Nobody) },
            v1::OutgoingServer { server: "common".into(), ..outgoing("b", OauthService) },
            v1::OutgoingServer { user: "nobody".into(), registration: "nowhere".into(), ..outgoing("c", OauthUser) },
            v1::OutgoingServer { registration: "users".into(), client_id: "x".into(), ..shared() },
            v1::OutgoingServer { transport: v1::Transport::Smtp.into(), name: "e".into(), ..shared() },
            v1::OutgoingServer { transport: v1::Transport::Graph.into(), user: "u".into(), ..outgoing("f", Nobody) },
            v1::OutgoingServer { server: "smtp://x".into(), registration: NAME.into(), ..outgoing("g", Password) },
            v1::OutgoingServer { secret: secret("x"), password: secret("x"), name: "e".into(), ..shared() },
        ]),
    )
    .await;
    let paths: Vec<_> = found.iter().map(|it| it.field.as_str()).collect();
    let expected = [
        "outgoingServers[0].authentication",
        "outgoingServers[0].transport",
        "outgoingServers[1].clientId",
        "outgoingServers[1].secret",
        "outgoingServers[1].server",
        "outgoingServers[1].user",
        "outgoingServers[2].password",
        "outgoingServers[2].registration",
        "outgoingServers[2].user",
        "outgoingServers[3].clientId",
        "outgoingServers[3].registration",
        "outgoingServers[4].transport",
        "outgoingServers[5].server",
        "outgoingServers[5].transport",
        "outgoingServers[5].user",
        "outgoingServers[6].password",
        "outgoingServers[6].registration",
        "outgoingServers[6].server",
        "outgoingServers[6].user",
        "outgoingServers[7].name",
        "outgoingServers[7].password",
        "outgoingServers[7].secret",
    ];
    assert_eq!(paths, expected, "{found:#?}");
}

#[tokio::test]
async fn a_sender_needs_an_enabled_outgoing_server_that_can_send_for_it() {
    let definitions = definitions(&store().await).await;
    let mut model = sample();
    model.queues[0].addresses[0].sender = true;
    let says = async |model: &v1::Model, text: &str| {
        let found = faults(&definitions, model.clone()).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].field, "queues[0].addresses[0].sender");
        assert!(found[0].description.contains(text), "{found:?}");
    };
    says(&model, "there is no outgoing server").await;
    model.outgoing_servers = vec![v1::OutgoingServer {
        server: "fabrikam.example".into(),
        user: "ada@fabrikam.example".into(),
        client_id: "c".into(),
        secret: secret("s"),
        ..outgoing("elsewhere", v1::OutgoingAuthentication::OauthService)
    }];
    says(&model, "none is a relay or of its tenant").await;
    model.outgoing_servers.push(v1::OutgoingServer { enabled: Some(false), ..shared() });
    says(&model, "\"Office 365\", which could send for it, is not enabled").await;
    model.outgoing_servers[1].enabled = None;
    apply_model(&definitions, model).await.unwrap();

    // What is stored is held to it too.
    let removals = vec![v1::DefinitionName { noun: "outgoing-server".into(), name: "Office 365".into() }];
    let failure = send(&definitions, v1::ApplyModelRequest { removals, ..Default::default() }).await.unwrap_err();
    assert_eq!(failure.fields[0].field, format!("queues[{NAME:?}].addresses[0].sender"));
    let removals = vec![v1::DefinitionName { noun: "incoming-server".into(), name: NAME.into() }];
    let failure = send(&definitions, v1::ApplyModelRequest { removals, ..Default::default() }).await.unwrap_err();
    assert!(failure.fields[0].description.contains("outgoing server \"Office 365\""), "{failure:?}");
}
