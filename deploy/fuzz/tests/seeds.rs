//! Every seed, and much that was drawn at random or made of seeds, through every target.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use postroom_fuzz::TARGETS;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// Cases of each target. POSTROOM_FUZZ_CASES: as many, drawn anew each time, for a longer look.
fn config() -> Config {
    let cases = std::env::var("POSTROOM_FUZZ_CASES").map_or(500, |text| text.parse().unwrap());
    Config { cases, failure_persistence: None, ..Config::default() }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

#[test]
fn every_target_has_seeds_and_holds_for_them() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(seeds.len() >= 3, "{name} has too few seeds");
        for seed in seeds {
            target(&seed);
            // Cut off anywhere, as a connection can be.
            for end in 0..seed.len().min(2000) {
                target(&seed[..end]);
            }
        }
    }
}

#[test]
fn every_target_holds_for_what_is_drawn() {
    for (name, target) in TARGETS {
        let drawn =
            prop_oneof![proptest::collection::vec(any::<u8>(), 0..400), "\\PC{0,200}".prop_map(String::into_bytes)];
        let outcome = TestRunner::new(config()).run(&drawn, |data| {
            target(&data);
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// What comes in the place of some bytes: others, or a part of another seed.
type Come = Result<Vec<u8>, (Index, Index, usize)>;

/// A change of a seed: where, how many bytes go, and what comes.
fn change() -> impl Strategy<Value = (Index, usize, Come)> {
    let other = (any::<Index>(), any::<Index>(), 0usize..200).prop_map(Err);
    let bytes = proptest::collection::vec(any::<u8>(), 0..8).prop_map(Ok);
    (any::<Index>(), 0usize..40, prop_oneof![bytes, other])
}

#[test]
fn every_target_holds_for_seeds_that_were_changed() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        let drawn = (any::<Index>(), proptest::collection::vec(change(), 1..6));
        let outcome = TestRunner::new(config()).run(&drawn, |(first, changes)| {
            let mut data = first.get(&seeds).clone();
            for (at, gone, come) in changes {
                let from = at.index(data.len() + 1);
                let to = (from + gone).min(data.len());
                let come = come.unwrap_or_else(|(other, at, length)| {
                    let other = other.get(&seeds);
                    let from = at.index(other.len() + 1);
                    other[from..(from + length).min(other.len())].to_vec()
                });
                data.splice(from..to, come);
            }
            target(&data);
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
