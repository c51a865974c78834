//! Which messages are taken, and that each ends once.

use proptest::prelude::*;

use super::*;

#[test]
fn the_start_policy_decides_only_about_what_was_there_before() {
    for (start, old_seen, old_unseen) in [
        (Start::Unseen, false, true),
        (Start::New, false, false),
        (Start::All, true, true),
        (Start::Since(100), false, false),
    ] {
        let cursor = Cursor::first(9, 11, start);
        assert_eq!(cursor.takes(10, true, Some(99)), old_seen, "{start:?}");
        assert_eq!(cursor.takes(10, false, Some(99)), old_unseen, "{start:?}");
        assert!(cursor.takes(11, true, Some(0)), "{start:?}");
    }
    assert!(Cursor::first(9, 11, Start::Since(100)).takes(10, true, Some(100)));
    assert_eq!(Cursor::first(9, 11, Start::New).done, 10);
    assert_eq!(Cursor::first(9, 1, Start::New).done, 0);
}

#[test]
fn a_place_is_pending_left_or_done() {
    let left = |doubtful| Place::BeforeStart { doubtful };
    // UIDs 1 to 10 were there before; 11 to 20 came later; 15 failed once; 20 is read last.
    let read = |start| {
        let mut cursor = Cursor::first(9, 11, start);
        cursor.fail(15);
        cursor.pass(20);
        cursor
    };
    for (start, seen, unseen) in [
        (Start::Unseen, left(false), left(true)),
        (Start::New, left(false), left(false)),
        (Start::All, Place::Done, Place::Done),
        (Start::Since(100), left(false), left(false)),
    ] {
        assert_eq!(read(start).place(3, true, Some(99)), seen, "{start:?}");
        assert_eq!(read(start).place(3, false, Some(99)), unseen, "{start:?}");
        assert_eq!(read(start).place(14, true, Some(99)), Place::Done, "{start:?}");
        assert_eq!(read(start).place(15, true, Some(99)), Place::Pending, "{start:?}");
        assert_eq!(read(start).place(21, true, Some(99)), Place::Pending, "{start:?}");
    }
    assert_eq!(read(Start::Since(100)).place(3, true, Some(100)), Place::Done);
    let unread = Cursor::first(9, 11, Start::Unseen);
    assert_eq!((unread.place(3, true, None), unread.place(3, false, None)), (left(false), Place::Pending));
}

#[test]
fn a_message_is_given_up_at_its_third_failure() {
    let mut cursor = Cursor::first(9, 1, Start::All);
    assert_eq!([cursor.fail(5), cursor.fail(5), cursor.fail(5)], [Verdict::Again, Verdict::Again, Verdict::GiveUp]);
    assert!(cursor.pending().is_empty());
    assert_eq!(cursor.done, 5);
}

proptest! {
    /// Whatever fails and succeeds in whatever order: every message ends exactly once, the set stays bounded, and
    /// the cursor survives being stored at any point.
    #[test]
    fn every_message_ends_exactly_once(outcomes in proptest::collection::vec(0u8..4, 1..600)) {
        let mut cursor = Cursor::first(9, 1, Start::All);
        let mut ended = std::collections::BTreeSet::new();
        let mut failures = outcomes.into_iter().cycle();
        for uid in 1..=300u32 {
            let fails = failures.next() == Some(0);
            if fails {
                if cursor.fail(uid) == Verdict::GiveUp {
                    prop_assert!(ended.insert(uid));
                }
            } else {
                cursor.settle(uid);
                prop_assert!(ended.insert(uid));
            }
            prop_assert!(cursor.pending().len() <= MAX_PENDING);
            let stored = Cursor::decode(Some(&cursor.encode())).expect("decodes").expect("a cursor");
            prop_assert_eq!(&stored, &cursor);
        }
        for _ in 0..MAX_ATTEMPTS {
            for uid in cursor.pending() {
                prop_assert!(!ended.contains(&uid));
                if cursor.fail(uid) == Verdict::GiveUp {
                    ended.insert(uid);
                }
            }
        }
        prop_assert_eq!(ended.len(), 300);
        prop_assert_eq!(cursor.done, 300);
    }

}
