use flate2::Compression;
use flate2::write::GzEncoder;
use tar::EntryType;

use super::super::packing::Packing;
use super::*;

const LEDGER: &[u8] = b"what would be a ledger";
const STORE: &[u8] = b"a store";
const KEYS: &[u8] = b"a key\n";

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Two bodies, in the order of their names.
fn bodies() -> Vec<(String, Vec<u8>)> {
    let mut bodies: Vec<_> =
        [&b"one body"[..], &[7; 2000]].iter().map(|body| (member::body(&digest(body)), body.to_vec())).collect();
    bodies.sort();
    bodies
}

fn manifest() -> Manifest {
    Manifest {
        format: FORMAT,
        version: "0.1.0".into(),
        created_micros: 1_772_366_400_000_000,
        ledger_id: "l".into(),
        ledger_bytes: LEDGER.len() as u64,
        highest_epoch: 3,
        messages: 5,
        contacts: 4,
        store_id: "s".into(),
        store_bytes: STORE.len() as u64,
        revision: 7,
        bodies: 2,
        body_bytes: 2008,
        missing_bodies: 0,
        missing: Vec::new(),
        key_id: "k".into(),
        further_key_ids: Vec::new(),
        key_bytes: KEYS.len() as u64,
    }
}

/// An archive as it should be, in members that a test can spoil.
struct Forge {
    members: Vec<(String, EntryType, Vec<u8>)>,
    /// Announced in place of the true size of the member of this name.
    sizes: Vec<(String, u64)>,
}

impl Forge {
    fn good() -> Self {
        let mut forge = Self { members: Vec::new(), sizes: Vec::new() };
        forge.push(member::MANIFEST, serde_json::to_vec(&manifest()).unwrap());
        forge.push(member::LEDGER, LEDGER.into());
        forge.push(member::STORE, STORE.into());
        forge.push(member::KEY, KEYS.into());
        for (name, body) in bodies() {
            forge.push(&name, body);
        }
        forge.sealed()
    }

    fn push(&mut self, name: &str, content: Vec<u8>) {
        self.members.push((name.into(), EntryType::Regular, content));
    }

    fn find(&mut self, name: &str) -> &mut (String, EntryType, Vec<u8>) {
        self.members.iter_mut().find(|member| member.0 == name).unwrap()
    }

    /// With another manifest, and all that follows fitting it.
    fn announcing(mut self, change: impl FnOnce(&mut Manifest)) -> Self {
        let mut manifest = manifest();
        change(&mut manifest);
        self.find(member::MANIFEST).2 = serde_json::to_vec(&manifest).unwrap();
        self.sealed()
    }

    /// With a seal that fits.
    fn sealed(mut self) -> Self {
        self.members.retain(|member| member.0 != member::SEAL);
        let mut seal = Seal::default();
        for (name, _, content) in self.members.iter().filter(|member| !member.0.starts_with("blobs/")) {
            seal.members.insert(name.clone(), digest(content));
        }
        self.push(member::SEAL, serde_json::to_vec(&seal).unwrap());
        self
    }

    fn tar(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, kind, content) in &self.members {
            let mut header = tar::Header::new_gnu();
            // By hand: the library refuses to write some of these names.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            let size = self.sizes.iter().find(|size| size.0 == *name).map_or(content.len() as u64, |size| size.1);
            header.set_size(size);
            header.set_mode(0o600);
            if !kind.is_file() {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            out.extend(header.as_bytes());
            out.extend(content);
            out.resize(out.len().next_multiple_of(512), 0);
        }
        out.extend([0; 1024]);
        out
    }

    fn archive(&self) -> Vec<u8> {
        gzip(&self.tar())
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// Everything below a folder.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|(below, content)| (format!("{name}/{below}"), content)));
        } else {
            found.push((name, fs::read(entry.path()).unwrap()));
        }
    }
    found.sort();
    found
}

fn unpacked(archive: &[u8]) -> Result<Vec<(String, Vec<u8>)>, Refused> {
    // One level down, so that whatever breaks out is found.
    let around = tempfile::tempdir().unwrap();
    let folder = around.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let unpacked = unpack(archive, &folder, Bodies::Keep);
    assert_eq!(fs::read_dir(around.path()).unwrap().count(), 1, "nothing is written beside the folder");
    assert!(files(&folder).iter().all(|(name, _)| !name.contains("passwd") && !name.contains("evil")));
    unpacked.map(|unpacked| {
        assert_eq!(unpacked.manifest, manifest());
        files(&folder)
    })
}

fn expected() -> Vec<(String, Vec<u8>)> {
    let mut expected = bodies();
    expected.extend([
        (member::LEDGER.into(), LEDGER.into()),
        (member::STORE.into(), STORE.into()),
        (member::KEY.into(), KEYS.into()),
    ]);
    expected.sort();
    expected
}

/// Every place near the ends, where the formats have their own bytes, and each fourth between.
fn sampled(len: usize) -> impl Iterator<Item = usize> {
    (0..len).filter(move |place| *place < 32 || len - place < 32 || place % 4 == 0)
}

#[test]
fn what_was_packed_comes_back() {
    assert_eq!(unpacked(&Forge::good().archive()).unwrap(), expected());
    let mut packing = Packing::new(0);
    for (name, _, content) in &Forge::good().members {
        packing.add(name, content).unwrap();
    }
    assert_eq!(unpacked(&packing.finish().unwrap()).unwrap(), expected());
}

#[test]
fn an_archive_cut_off_anywhere_is_incomplete() {
    let archive = Forge::good().archive();
    for end in sampled(archive.len()) {
        let refused = unpacked(&archive[..end]).unwrap_err();
        assert!(matches!(refused, Refused::Incomplete), "cut off at {end} of {}: {refused}", archive.len());
    }
    let tar = Forge::good().tar();
    // Cut off before it was compressed, as by somebody who packed it again.
    for end in (512..tar.len() - 1024).step_by(512) {
        let refused = unpacked(&gzip(&tar[..end])).unwrap_err();
        assert!(matches!(refused, Refused::Incomplete), "cut off at {end} of {}: {refused}", tar.len());
    }
}

#[test]
fn an_archive_with_any_bit_flipped_is_refused_or_means_the_same() {
    let archive = Forge::good().archive();
    let mut harmless = 0;
    for place in sampled(archive.len()) {
        let mut spoilt = archive.clone();
        spoilt[place] ^= 1 << (place % 8);
        match unpacked(&spoilt) {
            Ok(found) => {
                assert_eq!(found, expected(), "byte {place}");
                harmless += 1;
            }
            Err(Refused::Read(error)) => panic!("byte {place}: {error}"),
            Err(_) => {}
        }
    }
    // Time and system in the header of gzip mean nothing, nor do codes that no symbol uses.
    assert!(harmless < archive.len() / 10, "{harmless} of {}", archive.len());
}

fn refused(forge: &Forge) -> String {
    unpacked(&forge.archive()).unwrap_err().to_string()
}

#[test]
fn members_that_are_not_ours_are_refused() {
    for name in
        ["../evil", "/tmp/evil", "blobs/../../evil", "evil", "lock", "context.toml", "blobs/ab/evil", "./ledger.db"]
    {
        for place in 1..Forge::good().members.len() {
            let mut forge = Forge::good();
            forge.members.insert(place, (name.into(), EntryType::Regular, b"evil".into()));
            assert!(refused(&forge).contains("not what belongs there"), "{name} at {place}: {}", refused(&forge));
        }
    }
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Directory,
        EntryType::Char,
        EntryType::Fifo,
        EntryType::GNULongName,
        EntryType::XHeader,
        EntryType::GNUSparse,
    ] {
        let mut forge = Forge::good();
        forge.find(member::STORE).1 = kind;
        assert!(refused(&forge).contains("no plain file"), "{kind:?}: {}", refused(&forge));
    }
}

#[test]
fn bodies_out_of_order_or_twice_are_refused() {
    let mut forge = Forge::good();
    let first = forge.members.iter().position(|member| member.0.starts_with("blobs/")).unwrap();
    forge.members.swap(first, first + 1);
    assert!(refused(&forge).contains("out of its place"));
    let mut forge = Forge::good();
    forge.members[first + 1] = forge.members[first].clone();
    assert!(refused(&forge).contains("out of its place"));
    let mut forge = Forge::good();
    forge.members.remove(first);
    assert!(refused(&forge).contains("not what belongs there"), "one is missing: {}", refused(&forge));
}

#[test]
fn more_than_was_announced_is_refused_before_it_is_read() {
    let mut forge = Forge::good();
    forge.sizes.push((member::LEDGER.into(), 1 << 40));
    assert!(refused(&forge).contains("size that it announces"));
    let mut forge = Forge::good();
    forge.sizes.push((bodies()[0].0.clone(), 1 << 40));
    assert!(refused(&forge).contains("larger than announced"));
    let forge = Forge::good().announcing(|manifest| manifest.key_bytes = 1 << 40);
    assert!(refused(&forge).contains("key file that is too large"));
    let mut forge = Forge::good();
    forge.find(member::MANIFEST).2 = vec![b' '; 2 << 20];
    assert!(refused(&forge).contains("too large"));
}

#[test]
fn digests_that_do_not_fit_are_refused() {
    for name in [member::LEDGER, member::STORE, member::KEY] {
        let mut forge = Forge::good();
        forge.find(name).2[0] ^= 1;
        assert!(refused(&forge).contains("digests are not those"), "{name}");
    }
    let mut forge = Forge::good();
    forge.find(&bodies()[1].0).2[0] ^= 1;
    assert!(refused(&forge).contains("digests are not those"));
    let mut forge = Forge::good();
    forge.find(member::SEAL).2 = b"{}".into();
    assert!(refused(&forge).contains("digests cannot be read"));
}

#[test]
fn a_body_that_was_damaged_before_does_not_come_back_and_the_rest_does() {
    let spoilt = bodies()[1].0.clone();
    let mut forge = Forge::good();
    forge.find(&spoilt).2[0] ^= 1;
    let mut seal: Seal = serde_json::from_slice(&forge.find(member::SEAL).2).unwrap();
    seal.damaged.push(spoilt.clone());
    forge.find(member::SEAL).2 = serde_json::to_vec(&seal).unwrap();
    let found = unpacked(&forge.archive()).unwrap();
    assert_eq!(found, expected().into_iter().filter(|(name, _)| *name != spoilt).collect::<Vec<_>>());
}

#[test]
fn what_follows_the_end_is_refused() {
    let mut forge = Forge::good();
    forge.push(member::LEDGER, b"once more".into());
    assert!(refused(&forge).contains("behind its end"));
    let mut tar = Forge::good().tar();
    tar.extend(b"more");
    assert!(unpacked(&gzip(&tar)).unwrap_err().to_string().contains("behind its end"));
    let mut archive = Forge::good().archive();
    archive.push(0);
    assert!(unpacked(&archive).unwrap_err().to_string().contains("behind its end"));
}

#[test]
fn other_files_and_newer_formats_are_told_apart() {
    for other in [&b"PK\x03\x04"[..], b"SQLite format 3\0", b"\x1f", b"\x1f\x8bxxxxxxxxxxxxxxxxxxxxxxx"] {
        let refused = unpacked(other).unwrap_err();
        assert!(matches!(refused, Refused::NoBackup(_) | Refused::Incomplete), "{refused}");
    }
    let mut other = Forge { members: Vec::new(), sizes: Vec::new() };
    other.push("holiday.jpg", b"sea".into());
    assert!(matches!(unpacked(&other.archive()).unwrap_err(), Refused::NoBackup(_)));
    // Whatever else a newer manifest says.
    let mut newer = Forge::good();
    newer.find(member::MANIFEST).2 = br#"{"format": 2, "version": "9.9.9", "shape": "other"}"#.into();
    let refused = unpacked(&newer.archive()).unwrap_err();
    assert!(matches!(&refused, Refused::NewerFormat { found: 2, version } if version == "9.9.9"), "{refused}");
}
