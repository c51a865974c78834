//! Cyrus against itself: sign-ins by password, deliveries, folders, restarts.

use postroom_testbed::{Cyrus, Error, Mail};

const BOX: &str = "eve.o@contoso.example";

#[tokio::test]
async fn mail_and_passwords_outlive_a_restart_and_nothing_outlives_the_value() {
    let cyrus = Cyrus::start().await.unwrap();
    cyrus.create_mailbox(BOX, "pässword").await.unwrap();
    cyrus.deliver((0..2).map(|number| Mail::to(BOX).subject(&format!("mail-{number}")).delivery())).await.unwrap();
    cyrus.work(BOX, "INBOX", &["CREATE Done", "UID MOVE 1 Done", "UID STORE 2 +FLAGS (\\Seen)"]).await.unwrap();
    let refused = cyrus.deliver([Mail::to("nobody@contoso.example").delivery()]).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Refused { protocol: "LMTP", said } if said.contains("User unknown")),
        "{refused}"
    );
    for _ in 0..2 {
        let (inbox, done) = (cyrus.messages(BOX, "INBOX").await.unwrap(), cyrus.messages(BOX, "Done").await.unwrap());
        assert_eq!((inbox.len(), inbox[0].uid, inbox[0].is_seen(), inbox[0].subject.as_str()), (1, 2, true, "mail-1"));
        assert_eq!((done.len(), done[0].is_seen(), done[0].subject.as_str()), (1, false, "mail-0"));
        assert_eq!(cyrus.folders(BOX).await.unwrap(), ["INBOX", "Done"]);
        cyrus.stop().await.unwrap();
        cyrus.restart().await.unwrap();
    }
    cyrus.set_password(BOX, "another").await.unwrap();
    let mut client = postroom_testbed::imap::Client::connect(cyrus.imap_addr(), cyrus.authority()).await.unwrap();
    assert!(client.sign_in_with_password(BOX, "pässword").await.is_err());
    client.sign_in_with_password(BOX, "another").await.unwrap();
    let (dir, imap) = (cyrus.dir().to_owned(), cyrus.imap_addr());
    drop(cyrus);
    assert!(!dir.exists() && tokio::net::TcpStream::connect(imap).await.is_err());
}
