//! The words of the log: every field that a line, or a span of a [trace](crate::trace), may carry.
//!
//! One thing has one name, in the log, in traces and, where metrics have it, as a label, so that whoever follows a mailbox
//! or a contact looks for the same word everywhere. The manual's table is made of this list; a test fails for a field
//! that is not in it.

/// Each field and what it says. None of them holds a secret, or what a mail says.
pub const FIELDS: &[(&str, &str)] = &[
    // Whom and what it is about.
    ("mailbox", "Uid of a mailbox, as `mailbox show` tells it"),
    ("email", "Address of a mailbox"),
    ("contact", "Id of a contact, which is that of its trace too"),
    ("message", "Id of a message of the ledger"),
    ("source_key", "Identity of a message within its mailbox"),
    ("uids", "UIDs of messages in their folder"),
    ("mail", "Id of a mail of the outbox"),
    ("instance", "Name of an instance"),
    ("queue", "Name of a queue"),
    ("outgoing_server", "Name of an outgoing server"),
    ("worker", "Name of a worker"),
    ("session", "Id of one life of a worker"),
    ("pool", "Name of a pool of workers"),
    ("role", "Role of a worker or of a caller"),
    ("replica", "Name of a control plane among its replicas"),
    ("errand", "Id of a question to a worker"),
    ("task", "A part of the process"),
    ("store", "Id of the store"),
    ("endpoint", "URL by which something is called"),
    ("address", "Network address"),
    ("path", "A file or a folder"),
    ("key", "Name of a key, in the store or of the vault"),
    ("keys", "Names of keys of the vault"),
    ("admin", "File by which admins find the control plane"),
    ("workers", "File with the token of workers"),
    ("digest", "Digest of a message's body"),
    ("credential", "Id of a token or certificate"),
    ("name", "Name of a credential, or of a part of a backup"),
    ("rpc", "A call, as package.Service/Method"),
    ("entry", "Id of an entry of the audit"),
    ("by", "Who asked for it"),
    // What happened.
    ("error", "Why something failed, the innermost reason last"),
    ("code", "Code of a problem; `explain` tells more"),
    ("cause", "What the problem is"),
    ("remedy", "What to do about it"),
    ("reason", "Why it was decided so"),
    ("verdict", "What became of an attempt to send"),
    ("disposition", "What became of a message"),
    ("delay", "Time until it is tried again"),
    ("attempt", "Which attempt it is, from 1"),
    ("count", "How many there are"),
    ("bytes", "Length of a message"),
    ("days", "Days that are left"),
    ("priority", "Priority of a contact; 1 comes first"),
    // States, and what they were.
    ("epoch", "Epoch of a lease"),
    ("generation", "Generation of the store"),
    ("former", "What it was, or whose, before"),
    ("now", "What it is since"),
    ("drained", "Whether a worker is drained"),
    ("inherited", "Whether what stood elsewhere was taken over"),
    ("resumed", "Whether something goes on that was cut off"),
    ("mode", "Permissions of a file"),
    ("note", "What somebody wrote beside a decision"),
    ("release", "What was decided about old messages"),
    ("known", "Messages that the ledger had"),
    ("new", "Messages that the ledger did not have"),
    ("left", "Messages that are left where they are"),
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    const MACROS: [&str; 5] = ["trace!(", "debug!(", "info!(", "warn!(", "error!("];

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|it| it == "rs") {
                found.push(path);
            }
        }
    }

    /// What stands between the parentheses that have just been opened, split at its outer commas.
    fn arguments(text: &str) -> Vec<String> {
        let (mut depth, mut quoted, mut escaped) = (0_u32, false, false);
        let mut parts = vec![String::new()];
        for c in text.chars() {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                _ if quoted => {}
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' if depth == 0 => return parts,
                ')' | ']' | '}' => depth -= 1,
                ',' if depth == 0 => {
                    parts.push(String::new());
                    continue;
                }
                _ => {}
            }
            parts.last_mut().unwrap().push(c);
        }
        panic!("not closed: {text}");
    }

    /// The field that an argument of a macro of `tracing` is. `None`: it is the text, or no field.
    fn field(argument: &str) -> Option<String> {
        let argument = argument.trim();
        if argument.is_empty() || argument.starts_with('"') || argument.starts_with("target:") {
            return None;
        }
        let name = argument.trim_start_matches(['%', '?']);
        Some(name.split('=').next().unwrap_or(name).trim().to_owned())
    }

    /// Every field that is used, with a place.
    fn used() -> BTreeMap<String, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut files = Vec::new();
        for member in ["cli", "control-plane", "proto", "worker"] {
            sources(&root.join(member).join("src"), &mut files);
        }
        let mut used = BTreeMap::new();
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let place = file.strip_prefix(root).unwrap().display().to_string();
            for (at, _) in text.match_indices("tracing::") {
                let rest = &text[at + "tracing::".len()..];
                let Some(begin) = MACROS.iter().find_map(|name| rest.strip_prefix(name)) else { continue };
                used.extend(arguments(begin).iter().filter_map(|it| field(it)).map(|name| (name, place.clone())));
            }
            // Spans are made by these alone.
            if ["traces.rs", "traced.rs", "desk.rs"].iter().any(|name| place.ends_with(name)) {
                let names = text.split(".with(\"").skip(1).filter_map(|rest| rest.split('"').next());
                used.extend(names.map(|name| (name.to_owned(), place.clone())));
            }
        }
        assert!(used.len() > 20, "{used:?}");
        used
    }

    #[test]
    fn the_log_and_traces_use_these_words_and_no_others() {
        let (used, listed) = (used(), FIELDS.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>());
        assert_eq!(listed.len(), FIELDS.len(), "each stands once");
        let strange: Vec<_> = used.iter().filter(|(name, _)| !listed.contains(name.as_str())).collect();
        let idle: Vec<_> = listed.iter().filter(|name| !used.contains_key(**name)).collect();
        assert!(strange.is_empty() && idle.is_empty(), "not listed: {strange:?}; listed and not used: {idle:?}");
    }

    #[test]
    fn the_manual_has_them_all() {
        let manual = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/monitoring.md");
        let manual = fs::read_to_string(manual).unwrap();
        let rows = FIELDS.iter().map(|(name, what)| format!("| `{name}` | {what} |\n"));
        let table = format!("| field | what |\n|---|---|\n{}", rows.collect::<String>());
        assert!(manual.contains(&table), "write this into docs/monitoring.md:\n{table}");
    }
}
