//! How messages of a folder are called: by a UID that means something in one numbering only.

/// One numbering of a folder: UIDs mean something only together with it.
///
/// A server that numbers a folder anew gives it another UIDVALIDITY (RFC 3501 section 2.3.1.1), or a former one again, or
/// none other at all when an old state of the folder was put back below it. So the numberings of a folder are counted here,
/// and keys of two of them are never alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Numbering {
    /// UIDVALIDITY.
    pub validity: u32,
    /// How often the folder was numbered anew since the mailbox was first read.
    pub round: u32,
}

/// The numbering in which a folder with this UIDVALIDITY is first read.
impl From<u32> for Numbering {
    fn from(validity: u32) -> Self {
        Self { validity, round: 0 }
    }
}

/// Numbering and UID of a source key.
pub fn split(source_key: &str) -> Option<(Numbering, u32)> {
    let (numbering, uid) = source_key.split_once(':')?;
    let numbering = match numbering.split_once('.') {
        None => Numbering::from(numbering.parse::<u32>().ok()?),
        Some((validity, round)) => Numbering { validity: validity.parse().ok()?, round: round.parse().ok()? },
    };
    Some((numbering, uid.parse().ok()?))
}

/// Identity of a message within its mailbox: `9:42`, and `9.1:42` after the folder was numbered anew.
pub fn source_key(numbering: impl Into<Numbering>, uid: u32) -> String {
    match numbering.into() {
        Numbering { validity, round: 0 } => format!("{validity}:{uid}"),
        Numbering { validity, round } => format!("{validity}.{round}:{uid}"),
    }
}

/// The UID of a source key. `None`: it belongs to another numbering.
pub fn uid_of(source_key: &str, numbering: impl Into<Numbering>) -> Option<u32> {
    let (found, uid) = split(source_key)?;
    (found == numbering.into()).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_keys_belong_to_a_numbering() {
        assert_eq!(source_key(9, 42), "9:42");
        assert_eq!(uid_of("9:42", 9), Some(42));
        assert_eq!(uid_of("8:42", 9), None);
        assert_eq!(uid_of("42", 9), None);
        let second = Numbering { validity: 9, round: 2 };
        assert_eq!(source_key(second, 42), "9.2:42");
        assert_eq!((uid_of("9.2:42", second), uid_of("9:42", second), uid_of("9.2:42", 9)), (Some(42), None, None));
        assert_eq!((split("9.2.1:42"), split("9.:42"), split("9.2:")), (None, None, None));
    }
}
