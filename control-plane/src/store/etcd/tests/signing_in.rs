//! TLS, passwords, and tokens that end.

use std::path::PathBuf;

use super::*;

fn chain(error: &Error) -> String {
    crate::failure::chain(error)
}

async fn guarded() -> Server {
    let user = Some(("post".to_owned(), "planted-geheim".to_owned()));
    let token_lifetime = Some(Duration::from_secs(1));
    Server::start(Options { tls: true, user, token_lifetime, ..Options::default() }).await.unwrap()
}

fn trusted(server: &Server) -> EtcdSettings {
    let ca_file: Option<PathBuf> = server.authority().map(|authority| authority.ca_file().into());
    EtcdSettings { ca_file, password: Some("planted-geheim".into()), ..settings(server) }
}

#[tokio::test]
async fn with_tls_and_a_password_it_works_and_whoever_lacks_one_is_told_what_to_do() {
    let server = guarded().await;
    let good = trusted(&server);
    let store = Etcd::open_with(&good, QUICK).await.unwrap();
    write(&store, "a", "1").await;
    assert!(!format!("{store:?} {good:?}").contains("geheim"));

    let refused = async |settings: EtcdSettings| {
        let times = Times { read: Duration::from_secs(1), ..QUICK };
        let error = chain(&Etcd::open_with(&settings, times).await.unwrap_err());
        assert!(error.contains(&server.endpoint(0)), "{error}");
        assert!(!error.contains("geheim"), "{error}");
        error
    };
    let error = refused(EtcdSettings { password: Some("wrong-geheim".into()), ..good.clone() }).await;
    assert!(error.contains("the user or the password is wrong"), "{error}");
    let error = refused(EtcdSettings { user: None, password: None, ..good.clone() }).await;
    assert!(error.contains("write USER@"), "{error}");
    let error = refused(EtcdSettings { prefix: "/other/".into(), ..good.clone() }).await;
    assert!(error.contains("grant-permission"), "{error}");
    let error = refused(EtcdSettings { ca_file: None, ..good.clone() }).await;
    assert!(error.contains("certificate authority"), "{error}");
    let error = refused(EtcdSettings { tls: false, ca_file: None, ..good.clone() }).await;
    assert!(!error.is_empty());
    let missing = EtcdSettings { ca_file: Some("no such file".into()), ..good };
    assert!(refused(missing).await.contains("cannot read no such file"));
}

#[tokio::test]
async fn calls_and_watches_go_on_when_the_token_has_ended() {
    let server = guarded().await;
    let store = Etcd::open_with(&trusted(&server), QUICK).await.unwrap();
    let mut watch = store.watch("w/", from_now(&store).await).await.unwrap();
    write(&store, "w/a", "1").await;
    assert_eq!(next(&mut watch).await, ["1"]);
    // A token that is not used ends after a second; etcd looks every second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    committed(&store, vec![Guard::Absent("b".into())], vec![put("b", "1")]).await;
    // A restarted etcd knows none of the tokens that it gave out. The watch finds out without a call beside it.
    server.restart(0).await.unwrap();
    let other =
        Etcd::open_with(&EtcdSettings { prefix: store.prefix.clone(), ..trusted(&server) }, QUICK).await.unwrap();
    write(&other, "w/a", "2").await;
    assert_eq!(next(&mut watch).await, ["2"]);
}
