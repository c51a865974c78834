//! Names to save attachments under. A sender may write anything; what comes out here can be joined to a folder on any
//! system, and no two of a message are the same.

use std::collections::HashSet;

use postroom_proto::v1::Attachment;

/// Longest name in bytes: below the 255 of common file systems, with room for what a client adds.
const LONGEST: usize = 200;
/// Longest part behind the last dot that is kept when a name is shortened.
const LONGEST_EXTENSION: usize = 20;
/// What Windows reserves, whatever the extension.
const RESERVED: [&str; 22] = [
    "con", "prn", "aux", "nul", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8", "com9", "lpt1", "lpt2",
    "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
];

/// Fills `file_name` of the attachments of one message.
pub fn name_files(attachments: &mut [Attachment]) {
    let mut taken = HashSet::with_capacity(attachments.len());
    for attachment in attachments {
        let wanted = safe(&attachment.name).unwrap_or_else(|| format!("attachment-{}", attachment.index));
        attachment.file_name = unique(wanted, attachment.index, &mut taken);
    }
}

/// A safe name. `None`: nothing is left of it.
fn safe(name: &str) -> Option<String> {
    // A path is told by either separator, whatever system wrote it.
    let last = name.rsplit(['/', '\\']).find(|part| !part.trim_matches([' ', '.']).is_empty())?;
    let visible: String = last.chars().map(|c| if is_unsafe(c) { '_' } else { c }).collect();
    let trimmed = visible.trim().trim_start_matches(['.', ' ']).trim_end_matches(['.', ' ']);
    if trimmed.chars().all(|c| c == '_') {
        return None;
    }
    let stem = trimmed.split('.').next().unwrap_or_default().trim_end().to_lowercase();
    let reserved = RESERVED.contains(&stem.as_str());
    Some(shortened(&if reserved { format!("_{trimmed}") } else { trimmed.to_owned() }, ""))
}

/// Control characters, what Windows forbids, and marks that show a name in another order than it has.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*' | '/' | '\\')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
}

/// The name with `mark` before its extension, cut so that it is not too long.
fn shortened(name: &str, mark: &str) -> String {
    let (stem, extension) = match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= LONGEST_EXTENSION => name.split_at(dot),
        _ => (name, ""),
    };
    let mut end = stem.len().min(LONGEST - mark.len() - extension.len());
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    // A cut must not leave what was trimmed away before.
    let stem = stem[..end].trim_end_matches(['.', ' ']);
    format!("{stem}{mark}{extension}")
}

/// The name, or the name with a number if it is taken. Case does not tell files apart everywhere.
fn unique(wanted: String, index: u32, taken: &mut HashSet<String>) -> String {
    // The index is used once a message, so one look further is enough, unless a sender foresaw it.
    let numbered = (u64::from(index) + 1..).map(|number| shortened(&wanted, &format!(" ({number})")));
    let mut names = std::iter::once(wanted.clone()).chain(numbered);
    names.find(|name| taken.insert(name.to_lowercase())).unwrap_or(wanted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(names: &[&str]) -> Vec<String> {
        let attachment = |(index, name): (usize, &&str)| Attachment {
            index: u32::try_from(index).unwrap(),
            name: (*name).into(),
            ..Default::default()
        };
        let mut attachments: Vec<Attachment> = names.iter().enumerate().map(attachment).collect();
        name_files(&mut attachments);
        attachments.into_iter().map(|attachment| attachment.file_name).collect()
    }

    #[test]
    fn no_name_leads_out_of_a_folder_or_to_a_device() {
        let names =
            ["../../etc/passwd", "C:\\Users\\a\\.ssh", "..", "", "nul.txt", "a\u{202e}fdp.exe", "x/y\0z?.pdf", ". ."];
        let expected =
            ["passwd", "ssh", "attachment-2", "attachment-3", "_nul.txt", "a_fdp.exe", "y_z_.pdf", "attachment-7"];
        assert_eq!(named(&names), expected);
    }

    #[test]
    fn good_names_stay() {
        let names = ["Rechnung Nr. 4711.pdf", "請求書.xlsx", "café 🙂.tar.gz", "README"];
        assert_eq!(named(&names), names);
    }

    #[test]
    fn no_two_are_the_same_whatever_their_case() {
        assert_eq!(
            named(&["a.pdf", "A.PDF", "a.pdf", "a (3).pdf"]),
            ["a.pdf", "A (2).PDF", "a (3).pdf", "a (3) (4).pdf"]
        );
    }

    proptest! {
        #[test]
        fn whatever_a_sender_writes_the_names_are_safe(
            names in prop::collection::vec(prop_oneof!["\\PC{0,300}", "[./\\\\ a\u{0}-\u{1f}]{0,20}", Just("é".repeat(300)), Just("x".repeat(300))], 0..12)
        ) {
            let named = named(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let folded: HashSet<String> = named.iter().map(|name| name.to_lowercase()).collect();
            prop_assert_eq!(folded.len(), names.len());
            for name in named {
                prop_assert!(!name.is_empty() && name.len() <= LONGEST, "{:?}", name);
                prop_assert!(!name.contains(['/', '\\']) && !name.chars().any(is_unsafe), "{:?}", name);
                prop_assert!(!name.starts_with(['.', ' ']) && !name.ends_with(['.', ' ']), "{:?}", name);
            }
        }
    }
}
