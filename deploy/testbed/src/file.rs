//! Files of the testbed, written with the mode they are meant to have.

use std::{
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use crate::error::{Error, Result};

/// Writes a file that everybody may read.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    write_with_mode(path, content, 0o644)
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    write_with_mode(path, content, 0o600)
}

/// Creates a folder, and the folders above it, that others may pass through but not list.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(Error::file("create", path))
}

fn write_with_mode(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    // Written beside and renamed, so that a reader never sees half of it.
    let beside = path.with_extension("new");
    let written = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside);
    written
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(Error::file("write", path))
}
