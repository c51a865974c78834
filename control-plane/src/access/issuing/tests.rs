use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::access::token::Tokens;
use crate::store::sqlite::Sqlite;

/// Makes credentials at one of the replicas that share a store.
async fn issuer(store: &SharedStore) -> Issuer {
    Issuer {
        store: store.clone(),
        vault: Arc::new(Vault::from_text(&"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into()).unwrap()),
        directory: Directory::load(Tokens::default(), store).await.unwrap(),
        model: watch::channel(Arc::default()).1,
        tls: true,
        certificate_lifetime: Duration::from_secs(60),
    }
}

fn follow(issuer: &Issuer, store: &SharedStore) {
    tokio::spawn(issuer.directory.clone().follow(store.clone(), CancellationToken::new()));
}

async fn certificate(store: &SharedStore, id: &str, fingerprint: u8) {
    let role = Role::Worker(Some("mail-1".into()));
    let it = Credential::new(Kind::Certificate, "mail-1", role, [fingerprint; 32], (1, "mail-1", Micros::MAX));
    let write = Write::Put(key::credential(id), it.encode());
    assert!(matches!(store.commit(Vec::new(), vec![write]).await.unwrap(), Outcome::Committed(_)));
}

fn all_of(worker: &str) -> v1::RevokeCredentialsRequest {
    v1::RevokeCredentialsRequest { worker: worker.into(), ..Default::default() }
}

#[tokio::test]
async fn a_certificate_that_a_worker_gets_while_it_is_revoked_is_revoked_too() {
    let store: SharedStore = Arc::new(Sqlite::memory().await.unwrap());
    certificate(&store, "aaaaaaaaaaaa", 1).await;
    let issuer = issuer(&store).await;
    certificate(&store, "bbbbbbbbbbbb", 2).await;
    // It begins only when the revocation waits, which has looked by then.
    follow(&issuer, &store);
    let ended = issuer.revoke(all_of("mail-1"), "ada").await.unwrap().credentials;
    assert_eq!(ended.into_iter().map(|it| it.id).collect::<Vec<_>>(), ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]);
    assert!(issuer.directory.known().credentials.is_empty());
}

#[tokio::test]
async fn a_revocation_that_is_not_heard_of_is_not_called_done() {
    let store: SharedStore = Arc::new(Sqlite::memory().await.unwrap());
    certificate(&store, "aaaaaaaaaaaa", 1).await;
    let issuer = issuer(&store).await;
    let failure = issuer.revoke(all_of("mail-1"), "ada").await.unwrap_err();
    assert_eq!(failure.reason, Reason::OutcomeUnknown);
    assert!(issuer.directory.find(&[1; 32]).is_some(), "or it would have been done");
    follow(&issuer, &store);
    let again = issuer.revoke(all_of("mail-1"), "ada").await;
    assert!(again.is_ok() || again.is_err_and(|failure| failure.reason == Reason::NotFound));
    assert!(issuer.directory.find(&[1; 32]).is_none());
}

#[tokio::test]
async fn what_another_replica_has_ended_meanwhile_is_ended() {
    let store: SharedStore = Arc::new(Sqlite::memory().await.unwrap());
    certificate(&store, "aaaaaaaaaaaa", 1).await;
    let issuer = issuer(&store).await;
    let known = issuer.directory.known();
    let delete = vec![Write::Delete(key::credential("aaaaaaaaaaaa"))];
    let Outcome::Committed(revision) = store.commit(Vec::new(), delete).await.unwrap() else { panic!("a conflict") };
    follow(&issuer, &store);
    assert!(issuer.directory.reached(revision, HEARD).await);
    // Nothing changes any more that could be heard of.
    issuer.end(&known.credentials.iter().collect::<Vec<_>>(), "ada").await.unwrap();
}

#[tokio::test]
async fn of_all_who_want_a_name_at_one_moment_one_gets_it_and_nobody_else_is_in_the_way() {
    let store: SharedStore = Arc::new(Sqlite::memory().await.unwrap());
    let replicas = [issuer(&store).await, issuer(&store).await];
    replicas.iter().for_each(|replica| follow(replica, &store));
    let create = async |names: &[&str]| {
        let calls = names.iter().zip(replicas.iter().cycle()).map(|(name, replica)| {
            let request = v1::CreateTokenRequest { name: (*name).into(), role: "viewer".into(), ..Default::default() };
            replica.create(request, "ada")
        });
        join_all(calls).await
    };
    let (made, refused): (Vec<_>, Vec<_>) = create(&["a"; 8]).await.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (1, 7));
    for failure in refused.into_iter().filter_map(Result::err) {
        assert!(failure.message.contains("is another token's"), "{failure:?}");
    }
    let others = create(&["b", "c", "d", "e", "f", "g"]).await;
    assert!(others.iter().all(Result::is_ok), "{others:?}");
}
