//! `secret`.

use postroom_proto::v1;
use postroom_proto::v1::rotate_key_response::Event;

use super::Session;
use crate::args::{RotateKey, Secret};
use crate::client::Parts;
use crate::error::{Error, Kind};
use crate::progress::Progress;
use crate::render::table;

pub(super) async fn run(session: &mut Session<'_, '_>, verb: Secret) -> Result<(), Error> {
    let Secret::RotateKey(RotateKey { dry_run }) = verb;
    let progress = session.progress("sealing secrets again: revisions of the model");
    let stream = session.client()?.rotate_key(dry_run).await?;
    let rotation = progress.during(receive(stream, &progress)).await?;
    session.show(&rotation, shown)?;
    notes(&rotation).iter().for_each(|note| session.note(note));
    if rotation.unreadable_count == 0 {
        return Ok(());
    }
    let message = format!("{} secrets could not be sealed again: they do not open", rotation.unreadable_count);
    Err(Error::new(Kind::NotWell, message)
        .help("set those that are still used again; the keys that they name are kept while they are stored"))
}

async fn receive(mut stream: Parts<v1::RotateKeyResponse>, progress: &Progress) -> Result<v1::Rotation, Error> {
    while let Some(answer) = stream.next().await? {
        match answer.event {
            Some(Event::Progress(at)) => progress.at(at.done_count, at.total_count),
            Some(Event::Rotation(rotation)) => return Ok(rotation),
            // What a newer control plane says besides is no matter.
            None => {}
        }
    }
    Err(Error::new(Kind::Unavailable, "the rotation ended before it was finished")
        .help("run it again: it goes on where it ended"))
}

fn shown(rotation: &v1::Rotation) -> String {
    let (sealed, dropped) = match rotation.validate_only {
        true => ("would be sealed again", "would be dropped"),
        false => ("sealed again", "dropped"),
    };
    let mut rows = vec![
        ("key", rotation.key_id.clone()),
        ("kept in", rotation.key_source.clone()),
        (sealed, format!("{} secrets of {} revisions", rotation.secret_count, rotation.revision_count)),
        (dropped, rotation.dropped_key_ids.join(", ")),
        ("kept", rotation.kept_key_ids.join(", ")),
    ];
    if rotation.resumed {
        rows.push(("resumed", "there were several keys already; everything goes under the newest".into()));
    }
    if rotation.lost_count > 0 {
        rows.push(("lost", format!("{} secrets, whose key nobody has any more", rotation.lost_count)));
    }
    let mut text = table::pairs(rows);
    for unreadable in &rotation.unreadable {
        text.push_str(&table::indented(1, unreadable));
    }
    text
}

/// What is left to do.
fn notes(rotation: &v1::Rotation) -> Vec<String> {
    if rotation.validate_only {
        return Vec::new();
    }
    let mut notes = Vec::new();
    let dropped = rotation.dropped_key_ids.join(", ");
    if dropped.is_empty() {
        return notes;
    }
    notes.push(format!(
        "keep a copy of the new key elsewhere, then make a backup: backups from before open with key {dropped} only, so keep \
         the copy of that as long as you keep them"
    ));
    if rotation.source_keeps_keys {
        notes.push(format!(
            "take key {dropped} out of {}, all lines but the last: nothing stored names it any more",
            rotation.key_source
        ));
    }
    if rotation.compact_revision > 0 {
        notes.push(format!(
            "etcd remembers what was sealed with {dropped} until it is compacted and defragmented: `etcdctl compact {}`, then \
             `etcdctl defrag`",
            rotation.compact_revision
        ));
    }
    if rotation.former_store_kept {
        notes.push(format!(
            "store.db in the data folder is from before the move to etcd and still sealed with {dropped}: remove it when you \
             will not go back"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation() -> v1::Rotation {
        v1::Rotation {
            key_id: "new".into(),
            dropped_key_ids: vec!["old".into()],
            key_source: "the systemd credential key".into(),
            secret_count: 3,
            revision_count: 2,
            ..v1::Rotation::default()
        }
    }

    #[test]
    fn what_is_left_to_do_is_said_and_nothing_else() {
        assert_eq!(notes(&rotation()).len(), 1);
        let all = v1::Rotation {
            source_keeps_keys: true,
            compact_revision: 42,
            former_store_kept: true,
            resumed: true,
            ..rotation()
        };
        let told = notes(&all).join("\n");
        for part in ["take key old out of the systemd credential key", "etcdctl compact 42", "store.db"] {
            assert!(told.contains(part), "{told}");
        }
        assert!(shown(&all).contains("there were several keys already"));
        assert!(notes(&v1::Rotation { validate_only: true, ..all }).is_empty(), "a dry run leaves nothing to do");
    }

    #[test]
    fn a_dry_run_says_would() {
        let text = shown(&v1::Rotation { validate_only: true, key_id: String::new(), ..rotation() });
        assert!(text.contains("would be sealed again") && text.contains("3 secrets of 2 revisions"), "{text}");
    }
}
