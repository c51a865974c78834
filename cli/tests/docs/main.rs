//! What the manuals say is true as far as a test can know: links lead somewhere, command lines are understood, and the
//! reference is what the programs say of themselves.
//!
//! `POSTROOM_DOCS=1 cargo test --workspace --test docs` writes the reference anew.

#![allow(clippy::unwrap_used, reason = "a test panics where its setup fails")]

use std::fs;
use std::path::{Path, PathBuf};

mod commands;
mod links;
mod reference;

/// A manual: where it is, and what stands in it.
#[derive(Debug)]
struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    /// As it is named in what a test says.
    fn name(&self) -> String {
        self.path.strip_prefix(root()).unwrap().display().to_string()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

/// Every page of the project.
fn pages() -> Vec<Page> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                // What is built, downloaded or hidden is none of ours.
                if !matches!(name.as_str(), "target" | "node_modules" | "venv") && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(".md") {
                found.push(Page { text: fs::read_to_string(&path).unwrap(), path });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 10, "{} pages", found.len());
    found
}
