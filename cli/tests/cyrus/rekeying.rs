//! A folder is deleted and made again, filled again, and put back to an older state, while it is read.

use std::path::Path;
use std::process::Command;

use postroom_testbed::imap;

use crate::harness::{Up, eventually, mailbox};
use crate::house::{BOX, House, assert_checked, assert_clean, idle, mails, named, taken};

const FOLDER: &str = "Work";

/// A house whose mailbox is read in [`FOLDER`].
async fn house() -> (House, Up, imap::Client) {
    let house = House::with(&[BOX]).await;
    let mut owner = house.cyrus.open(BOX).await.unwrap();
    owner.command(&format!("CREATE {FOLDER}")).await.unwrap();
    house.put(FOLDER, &mails("archive", 3)).await;
    let up = house.up(&house.model("start: new", &format!(", folder: {FOLDER}"))).await;
    idle(&up, BOX).await;
    (house, up, owner)
}

/// Waits until so many messages of the folder were found again when it was last numbered anew.
async fn known(up: &Up, count: u64) {
    let client = up.client();
    eventually(&format!("{count} are known again"), || async {
        let renumbering = mailbox(&client, BOX).await.renumbering.unwrap_or_default();
        renumbering.finished_time.is_some() && renumbering.known_count == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_deleted_and_made_again_while_it_is_read_is_read_on() {
    let (house, up, mut owner) = house().await;
    let first = mails("a", 5);
    house.put(FOLDER, &first).await;
    let mut expected = named(&[("a", 5)]);
    taken(&up, &expected).await;
    idle(&up, BOX).await;

    // Its reader waits in IDLE, and is told of messages that are gone, not of the folder.
    owner.command(&format!("DELETE {FOLDER}")).await.unwrap();
    owner.command(&format!("CREATE {FOLDER}")).await.unwrap();
    house.put(FOLDER, &mails("b", 2)).await;
    expected.extend(named(&[("b", 2)]));
    taken(&up, &expected).await;
    assert_checked(&up, BOX);

    // Restored by somebody who puts the mails in as if they came now, into a folder with yet another UIDVALIDITY.
    owner.command(&format!("RENAME {FOLDER} Aside")).await.unwrap();
    owner.command(&format!("CREATE {FOLDER}")).await.unwrap();
    house.put(FOLDER, &first).await;
    house.cyrus.work(BOX, "Aside", &[&format!("UID COPY 1:* {FOLDER}")]).await.unwrap();
    house.put(FOLDER, &mails("c", 2)).await;
    expected.extend(named(&[("c", 2)]));
    taken(&up, &expected).await;
    known(&up, 7).await;
    idle(&up, BOX).await;
    taken(&up, &expected).await;
    assert_clean(&up, BOX).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_state_of_the_mailbox_below_its_uidvalidity_replays_and_hides_nothing() {
    let (house, up, _) = house().await;
    house.put(FOLDER, &mails("a", 5)).await;
    let mut expected = named(&[("a", 5)]);
    taken(&up, &expected).await;
    let kept = house.folder.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    let copy = |from: &Path, to: &Path| {
        let from = ["state", "mail"].map(|name| from.join(name));
        assert!(Command::new("cp").arg("-a").args(from).arg(to).status().unwrap().success());
    };
    let server = house.cyrus.dir();
    house.cyrus.stop().await.unwrap();
    copy(server, &kept);
    house.cyrus.restart().await.unwrap();
    house.put(FOLDER, &mails("b", 10)).await;
    expected.extend(named(&[("b", 10)]));
    taken(&up, &expected).await;

    house.cyrus.stop().await.unwrap();
    for name in ["state", "mail"] {
        std::fs::remove_dir_all(server.join(name)).unwrap();
    }
    copy(&kept, server);
    house.cyrus.restart().await.unwrap();
    // These get UIDs that others had.
    house.put(FOLDER, &mails("c", 2)).await;
    expected.extend(named(&[("c", 2)]));
    taken(&up, &expected).await;
    known(&up, 5).await;
    idle(&up, BOX).await;
    taken(&up, &expected).await;
    assert_clean(&up, BOX).await;
}
