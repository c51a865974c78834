//! Members in, bytes of the archive out. No I/O: whoever feeds it takes out what has come of it.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

/// Size of the blocks that a tar consists of.
const BLOCK: u64 = 512;

/// An archive that is being written.
#[derive(Debug)]
pub(super) struct Packing {
    gzip: GzEncoder<Vec<u8>>,
    member: Option<Member>,
    created_seconds: u64,
}

#[derive(Debug)]
struct Member {
    size: u64,
    missing: u64,
    hash: Sha256,
}

impl Packing {
    /// An archive whose members carry this time, in seconds since 1970.
    pub(super) fn new(created_seconds: u64) -> Self {
        // Fast: mail is mostly base64, of which a slower run gains little, and the machine has other things to do.
        Self { gzip: GzEncoder::new(Vec::new(), Compression::fast()), member: None, created_seconds }
    }

    /// Begins a member of `size` bytes.
    pub(super) fn begin(&mut self, name: &str, size: u64) -> io::Result<()> {
        if self.member.is_some() {
            return Err(io::Error::other("the member before is not at its end"));
        }
        let mut header = tar::Header::new_gnu();
        header.set_path(name)?;
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(self.created_seconds);
        header.set_cksum();
        self.gzip.write_all(header.as_bytes())?;
        self.member = Some(Member { size, missing: size, hash: Sha256::new() });
        Ok(())
    }

    /// Adds bytes to the member.
    pub(super) fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        let member = self.member.as_mut().ok_or_else(|| io::Error::other("there is no member to add to"))?;
        let grown = || io::Error::other("a file has grown while it was read");
        member.missing = member.missing.checked_sub(piece.len() as u64).ok_or_else(grown)?;
        member.hash.update(piece);
        self.gzip.write_all(piece)
    }

    /// Ends the member; says its digest, in hexadecimal.
    pub(super) fn end(&mut self) -> io::Result<String> {
        let member = self.member.take().ok_or_else(|| io::Error::other("there is no member to end"))?;
        if member.missing > 0 {
            return Err(io::Error::other("a file has shrunk while it was read"));
        }
        let padding = member.size.next_multiple_of(BLOCK) - member.size;
        io::copy(&mut io::Read::take(io::repeat(0), padding), &mut self.gzip)?;
        Ok(data_encoding::HEXLOWER.encode(&member.hash.finalize()))
    }

    /// A whole member.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> io::Result<String> {
        self.begin(name, content.len() as u64)?;
        self.push(content)?;
        self.end()
    }

    /// Bytes that wait to be taken out.
    pub(super) fn waiting(&self) -> usize {
        self.gzip.get_ref().len()
    }

    /// Takes out what has come so far.
    pub(super) fn take(&mut self) -> Bytes {
        std::mem::take(self.gzip.get_mut()).into()
    }

    /// Ends the archive; says its last bytes.
    pub(super) fn finish(mut self) -> io::Result<Bytes> {
        self.gzip.write_all(&[0; 2 * BLOCK as usize])?;
        Ok(self.gzip.finish()?.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn any_tar_reads_what_was_packed() {
        let mut packing = Packing::new(1_772_366_400);
        let mut archive = Vec::new();
        packing.add("empty", b"").unwrap();
        packing.begin("large", 100_000).unwrap();
        for piece in vec![7; 100_000].chunks(333) {
            packing.push(piece).unwrap();
            archive.extend(packing.take());
        }
        let digest = packing.end().unwrap();
        archive.extend(packing.finish().unwrap());
        assert_eq!(digest, data_encoding::HEXLOWER.encode(&Sha256::digest(vec![7; 100_000])));

        let mut read = tar::Archive::new(flate2::read::GzDecoder::new(archive.as_slice()));
        let mut found = Vec::new();
        for entry in read.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            found.push((entry.path().unwrap().display().to_string(), content));
        }
        assert_eq!(found, [("empty".into(), Vec::new()), ("large".into(), vec![7; 100_000])]);
    }

    #[test]
    fn a_file_that_changes_its_size_is_noticed() {
        let mut packing = Packing::new(0);
        packing.begin("x", 2).unwrap();
        packing.push(b"a").unwrap();
        assert!(packing.push(b"bc").is_err());
        let mut packing = Packing::new(0);
        packing.begin("x", 2).unwrap();
        assert!(packing.end().is_err());
    }
}
