//! How contacts are listed, joined to threads and watched.

use super::*;

pub(crate) async fn contacts_are_listed_page_by_page(ledger: impl Ledger) {
    fill(&ledger, "a@x.example", &[(5, 3), (5, 1), (1, 9), (10, 2), (5, 2)], 1000).await;
    ledger.allocate(take(1, "r1"), 2000).await.unwrap();
    let filter =
        ContactFilter { instance_uid: Some("i1".into()), state: Some(ContactState::Queued), ..Default::default() };
    let seen = listed(&ledger, &filter, 2).await;
    assert_eq!(subjects(&seen), ["1:1", "1:4", "1:0", "1:3"]);
    assert!(seen.iter().all(|contact| contact.content.as_ref().unwrap().text.is_empty()));
    let (_, whole) = ledger.contact(&seen[0].id).await.unwrap().unwrap();
    assert_eq!(whole.content.unwrap().text, "text");
    assert_eq!(ledger.contact("no such").await.unwrap(), None);
}

/// A message with an id, which answers others.
fn reply(key: &str, id: &str, in_reply_to: &str, references: &[&str]) -> Message {
    let mut message = message(key, 5);
    let content = message.content.as_mut().unwrap();
    content.message_id = id.into();
    content.in_reply_to = vec![in_reply_to.into()];
    content.references = references.iter().map(|id| (*id).to_owned()).collect();
    message
}

pub(crate) async fn replies_join_the_thread_of_what_they_answer(ledger: impl Ledger) {
    ledger.open(&mailbox("a@x.example"), &fence(1, "s1")).await.unwrap().unwrap();
    let first = batch(
        "a@x.example",
        fence(1, "s1"),
        0,
        1,
        vec![
            reply("1:1", "one@x", "", &[]),
            reply("1:2", "two@x", "unknown@x", &["one@x"]),
            // DHL's: the same Message-ID again, in another mail. Both stay, and neither joins the other.
            reply("1:3", "one@x", "", &[]),
            reply("1:4", "", "", &[]),
        ],
    );
    let ids: Vec<String> =
        ledger.report(first, 10).await.unwrap().unwrap().outcomes.into_iter().map(|it| it.contact).collect();
    let second = batch(
        "a@x.example",
        fence(1, "s1"),
        1,
        2,
        vec![
            reply("1:5", "five@x", "two@x", &[]),
            reply("1:6", "six@x", "one@x", &[]),
            reply("1:7", "one@x", "one@x", &[]),
        ],
    );
    let later: Vec<String> =
        ledger.report(second, 20).await.unwrap().unwrap().outcomes.into_iter().map(|it| it.contact).collect();
    assert!(ids.iter().chain(&later).all(|id| !id.is_empty()), "no Message-ID ever costs a contact");
    let contact = async |id: &str| ledger.contact(id).await.unwrap().unwrap().1;
    assert_eq!(contact(&ids[1]).await.thread, ids[0], "even within one report");
    assert_eq!(contact(&ids[2]).await.thread, ids[2]);
    assert_eq!(contact(&ids[3]).await.thread, ids[3]);
    let five = contact(&later[0]).await;
    assert_eq!((five.thread.as_str(), five.earlier_contacts), (ids[0].as_str(), vec![ids[1].clone(), ids[0].clone()]));
    assert_eq!(contact(&later[1]).await.thread, ids[2], "of two with the same id the newer one is meant");
    assert_eq!(contact(&later[2]).await.thread, later[2], "a mail that answers itself answers nothing");
    let filter = ContactFilter { thread: Some(ids[0].clone()), ..Default::default() };
    assert_eq!(subjects(&listed(&ledger, &filter, 2).await), ["1:1", "1:2", "1:5"]);
}

pub(crate) async fn a_thread_ends_where_the_instance_does(ledger: impl Ledger) {
    ledger.open(&mailbox("a@x.example"), &fence(1, "s1")).await.unwrap().unwrap();
    let ours = batch("a@x.example", fence(1, "s1"), 0, 1, vec![reply("1:1", "one@x", "", &[])]);
    let one = ledger.report(ours, 10).await.unwrap().unwrap().outcomes.remove(0).contact;
    let mut theirs = batch("a@x.example", fence(1, "s1"), 1, 2, vec![reply("1:2", "two@x", "one@x", &[])]);
    theirs.intake.instance_uid = "i2".into();
    let two = ledger.report(theirs, 20).await.unwrap().unwrap().outcomes.remove(0).contact;
    let contact = ledger.contact(&two).await.unwrap().unwrap().1;
    assert_eq!((contact.thread, contact.earlier_contacts), (two.clone(), vec![]));
    // Moved to where the answered mail is, it joins it; moved away again, it is on its own.
    moved(&ledger, "i2", transfer("t1", &[&two], 1, 1), 30).await;
    let contact = ledger.contact(&two).await.unwrap().unwrap().1;
    assert_eq!((contact.thread, contact.earlier_contacts), (one.clone(), vec![one]));
    moved(&ledger, "i1", transfer("t2", &[&two], 2, 1), 40).await;
    let contact = ledger.contact(&two).await.unwrap().unwrap().1;
    assert_eq!((contact.thread, contact.earlier_contacts), (two, vec![]));
    assert_eq!(contact.transfers.len(), 2);
}

pub(crate) async fn lists_are_narrowed(ledger: impl Ledger) {
    for (number, email) in [(1u8, "a@x.example"), (2, "b@x.example")] {
        ledger.open(&mailbox(email), &fence(1, "s1")).await.unwrap().unwrap();
        for step in 0..4u8 {
            let mut one = message(&format!("{number}:{step}"), i64::from(step) * 10);
            one.kind = if step % 2 == 0 { ContactKind::Normal } else { ContactKind::Bounce };
            let from =
                v1::EmailAddress { name: format!("Zoë {number}"), address: format!("C{step}@Fabrikam.example") };
            one.content.as_mut().unwrap().from = vec![from];
            let mut batch = batch(email, fence(1, "s1"), step, step + 1, vec![one]);
            batch.intake.instance_uid = format!("i{number}");
            batch.intake.queue_uid = format!("q{number}");
            batch.intake.priority = 1 + u32::from(step) / 2;
            ledger.report(batch, 1000).await.unwrap().unwrap();
        }
    }
    ledger.allocate(take(1, "r1"), 2000).await.unwrap();
    let none = ContactFilter::default;
    let text = |text: &str| Some(text.to_owned());
    let cases: [(&str, ContactFilter, &[&str]); 10] = [
        ("all", none(), &["1:1", "1:2", "1:3", "1:0", "2:0", "2:1", "2:2", "2:3"]),
        ("state", ContactFilter { state: Some(ContactState::Allocated), ..none() }, &["1:0"]),
        ("queue", ContactFilter { queue_uid: text("q1"), ..none() }, &["1:1", "1:2", "1:3", "1:0"]),
        ("foreign queue", ContactFilter { queue_uid: text("q1"), instance_uid: text("i2"), ..none() }, &[]),
        ("priority", ContactFilter { priority: Some(2), ..none() }, &["1:2", "1:3", "2:2", "2:3"]),
        ("kind", ContactFilter { kind: Some(ContactKind::Bounce), ..none() }, &["1:1", "1:3", "2:1", "2:3"]),
        ("address", ContactFilter { address: text("b@x.example"), ..none() }, &["2:0", "2:1", "2:2", "2:3"]),
        ("since", ContactFilter { received_since: Some(20), received_until: Some(30), ..none() }, &["1:2", "2:2"]),
        ("sender", ContactFilter { sender: "c1@fabrikam".into(), ..none() }, &["1:1", "2:1"]),
        ("sender", ContactFilter { sender: "zoë 2".into(), ..none() }, &["2:0", "2:1", "2:2", "2:3"]),
    ];
    for (what, filter, expected) in cases {
        for size in [1, 2, 3, 100] {
            assert_eq!(subjects(&listed(&ledger, &filter, size).await), expected, "{what}, {size} a page");
        }
    }
}

pub(crate) async fn every_change_of_a_contact_is_told_in_order(ledger: impl Ledger) {
    assert_eq!(ledger.newest_contact_change().await.unwrap(), 0);
    let nothing = ledger.contact_changes(None, 0, 100).await.unwrap().unwrap();
    assert_eq!((nothing.changes.len(), nothing.upto, nothing.newest), (0, 0, 0));
    assert!(ledger.contact_changes(None, 1, 100).await.unwrap().is_none(), "never reached here");

    fill(&ledger, "a@x.example", &[(5, 1), (5, 2)], 1000).await;
    let two = ledger.contact_changes(Some("i1"), 0, 100).await.unwrap().unwrap();
    assert_eq!(two.changes.iter().map(|change| change.revision).collect::<Vec<_>>(), [1, 2]);
    assert!(two.changes.iter().all(|it| it.contact.content.as_ref().unwrap().text.is_empty()));
    let id = ledger.allocate(take(1, "r1"), 2000).await.unwrap().contacts[0].id.clone();
    let mine = || vec![(id.clone(), "r1".to_owned())];
    answered(&ledger, "i1", Answer::Extend(500 * SECOND), mine(), 2001).await;
    answered(&ledger, "i1", Answer::Accept, mine(), 2002).await;
    let after = ledger.contact_changes(Some("i1"), 2, 100).await.unwrap().unwrap();
    assert_eq!((after.changes.len(), after.upto, after.newest), (1, 5, 5), "three of one contact are told as one");
    assert_eq!((after.changes[0].revision, after.changes[0].contact.state()), (5, ContactState::Accepted));
    let window = ledger.contact_changes(Some("i1"), 0, 2).await.unwrap().unwrap();
    assert_eq!((window.upto, window.newest), (2, 5));
    answered(&ledger, "i1", Answer::Accept, mine(), 2003).await;
    assert_eq!(ledger.newest_contact_change().await.unwrap(), 5, "what changes nothing is no change");

    moved(&ledger, "i1", transfer("t1", &[&id], 2, 1), 2004).await;
    let of = async |instance| ledger.contact_changes(instance, 5, 100).await.unwrap().unwrap().changes;
    let told = of(Some("i1")).await;
    assert_eq!(told.iter().map(|it| (it.left, it.contact.id.as_str())).collect::<Vec<_>>(), [(true, id.as_str())]);
    let told = of(Some("i2")).await;
    assert_eq!(
        told.iter().map(|it| (it.left, it.contact.state())).collect::<Vec<_>>(),
        [(false, ContactState::Queued)]
    );
    assert_eq!(of(None).await.len(), 1, "who sees all sees it stay");
}

pub(crate) async fn old_changes_are_cut_off_and_no_revision_is_used_twice(ledger: impl Ledger) {
    fill(&ledger, "a@x.example", &[(5, 1), (5, 2), (5, 3), (5, 4)], 1000).await;
    ledger.trim_contact_changes(2).await.unwrap();
    assert!(ledger.contact_changes(None, 1, 100).await.unwrap().is_none(), "the second was cut off");
    assert_eq!(ledger.contact_changes(None, 2, 100).await.unwrap().unwrap().changes.len(), 2);
    ledger.trim_contact_changes(0).await.unwrap();
    ledger.allocate(take(1, "r1"), 2000).await.unwrap();
    assert_eq!(ledger.newest_contact_change().await.unwrap(), 5);
}
