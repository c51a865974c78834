//! What the front makes of an answer of the server. Pure.

use serde::{Deserialize, Serialize};

use super::answers;
use crate::imap::literal_length;

/// Most bytes that are sent of a literal which is made longer than the message; more are only announced.
const FILLED_BYTES: u64 = 8 << 20;

/// How the answers to one command are changed on their way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// These lines come first, each with its literals if it has any; without the last line end.
    Before(String),
    /// To IDLE: a message is told of (`* n EXISTS`) before the server says that it waits, and not again. The command is
    /// held up until there is one.
    ExistsFirst,
    /// Every RFC822.SIZE is this.
    Sizes(u64),
    /// The sequence numbers of FETCH answers are so much higher than they should be.
    Sequence(u32),
    /// Of the message with this UID no data come.
    Without(u32),
    /// In place of the message with this UID comes what Exchange sends when it cannot convert one.
    Placeholder(u32),
    /// The body of the message with this UID is announced with so many bytes. As many are sent, up to 8 MiB.
    Literal {
        /// Of the message.
        uid: u32,
        /// What is announced.
        bytes: u64,
    },
    /// The data of the message with this UID have a BODYSTRUCTURE that is so deep.
    Nesting {
        /// Of the message.
        uid: u32,
        /// Open parentheses.
        depth: usize,
    },
    /// After the data of so many messages the command ends with this status, for example `NO Server Unavailable. 15`.
    RefusedAfter {
        /// FETCH answers that come through.
        messages: usize,
        /// What it ends with.
        status: String,
    },
    /// In the middle of the first literal the connection ends. What is said there may be empty.
    BrokenLiteral(String),
    /// COPYUID without UIDs: `[COPYUID 7  ]`.
    EmptyCopyUid,
    /// UIDVALIDITY is this.
    UidValidity(u32),
    /// Response codes have no `OK` in front: `* [UIDNEXT 9]`.
    BareCodes,
    /// The server can do this.
    Capabilities(String),
    /// No answer comes. From time to time the server says that it is still there, until the client hangs up.
    Chatter,
}

/// What is said in place of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// This.
    This(Vec<u8>),
    /// Nothing.
    Nothing,
    /// This, and then the connection ends.
    Last(Vec<u8>),
}

impl Change {
    /// What becomes of `answer`, which may be the end of the command with this `tag`, after the data of `fetched` messages.
    pub(super) fn told(&self, answer: Vec<u8>, tag: &str, fetched: usize) -> Told {
        let of = fetch(&answer);
        let is_of = |uid: u32| of == Some(Some(uid));
        match self {
            Self::Sizes(bytes) if of.is_some() => Told::This(with_number(&answer, "RFC822.SIZE ", &bytes.to_string())),
            Self::Sequence(by) if of.is_some() => {
                let number = digits(&answer[2..]).parse().unwrap_or(0u32).saturating_add(*by);
                Told::This(with_number(&answer, "* ", &number.to_string()))
            }
            Self::Without(uid) if is_of(*uid) => Told::Nothing,
            Self::Placeholder(uid) if is_of(*uid) => Told::This(match split(&answer) {
                Some((head, _, rest)) => join(head, answers::placeholder(*uid).as_bytes(), rest),
                None => answer,
            }),
            Self::Literal { uid, bytes } if is_of(*uid) => Told::This(match split(&answer) {
                Some((head, body, rest)) => announced(head, body, rest, *bytes),
                None => answer,
            }),
            Self::Nesting { uid, depth } if is_of(*uid) => {
                let nested = format!(" BODYSTRUCTURE {}{} BODY[", "(".repeat(*depth), ")".repeat(*depth));
                Told::This(replaced(&answer, " BODY[", &nested))
            }
            Self::RefusedAfter { status, .. } if answer.starts_with(format!("{tag} ").as_bytes()) => {
                Told::This(format!("{tag} {status}\r\n").into_bytes())
            }
            Self::RefusedAfter { messages, .. } if of.is_some() && fetched >= *messages => Told::Nothing,
            Self::BrokenLiteral(said) => match split(&answer) {
                Some((head, body, _)) => {
                    let half = &body[..body.len() / 2];
                    let said = if said.is_empty() { String::new() } else { format!("{said}\r\n") };
                    Told::Last([head, b"\r\n", half, said.as_bytes()].concat())
                }
                None => Told::This(answer),
            },
            Self::EmptyCopyUid => {
                let text = String::from_utf8_lossy(&answer).into_owned();
                let Some((before, after)) = text.split_once("[COPYUID ") else { return Told::This(answer) };
                let (number, rest) = (digits(after.as_bytes()), after.split_once(']').map_or("", |(_, rest)| rest));
                Told::This(format!("{before}[COPYUID {number}  ]{rest}").into_bytes())
            }
            Self::UidValidity(value) => Told::This(with_number(&answer, "[UIDVALIDITY ", &value.to_string())),
            Self::BareCodes if answer.starts_with(b"* OK [") => Told::This(replaced(&answer, "* OK [", "* [")),
            Self::Capabilities(words) if answer.starts_with(b"* CAPABILITY ") => {
                Told::This(format!("* CAPABILITY {words}\r\n").into_bytes())
            }
            _ => Told::This(answer),
        }
    }
}

/// Whether an answer holds data of a message, and its UID if that stands before the first literal.
pub(super) fn fetch(answer: &[u8]) -> Option<Option<u32>> {
    let line = String::from_utf8_lossy(first_line(answer)).into_owned();
    let (number, data) = line.strip_prefix("* ")?.split_once(' ')?;
    let data = data.strip_prefix("FETCH (").filter(|_| number.bytes().all(|byte| byte.is_ascii_digit()))?;
    let uid = data.split(' ').skip_while(|word| *word != "UID").nth(1);
    Some(uid.and_then(|uid| uid.trim_end_matches(')').parse().ok()))
}

/// What stands before the first literal (without the line end), the literal, and the rest.
fn split(answer: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let head = first_line(answer);
    let length = literal_length(head)?;
    let body = answer.get(head.len() + 2..)?;
    (body.len() >= length).then(|| (head, &body[..length], &body[length..]))
}

/// An answer with another literal in place of its first.
fn join(head: &[u8], body: &[u8], rest: &[u8]) -> Vec<u8> {
    [announcing(head, body.len() as u64).as_slice(), body, rest].concat()
}

/// An answer whose first literal is said to have `bytes` bytes, and has them unless they are too many.
fn announced(head: &[u8], body: &[u8], rest: &[u8], bytes: u64) -> Vec<u8> {
    let sent = usize::try_from(bytes.min(FILLED_BYTES)).unwrap_or_default();
    let fill: Vec<u8> = body.iter().copied().chain(std::iter::repeat(b'x')).take(sent).collect();
    [announcing(head, bytes).as_slice(), &fill, rest].concat()
}

fn announcing(head: &[u8], bytes: u64) -> Vec<u8> {
    let at = head.iter().rposition(|byte| *byte == b'{').unwrap_or(head.len());
    [&head[..at], format!("{{{bytes}}}\r\n").as_bytes()].concat()
}

fn first_line(answer: &[u8]) -> &[u8] {
    let end = answer.windows(2).position(|two| two == b"\r\n").unwrap_or(answer.len());
    &answer[..end]
}

/// The number at the beginning of a text.
fn digits(text: &[u8]) -> String {
    text.iter().take_while(|byte| byte.is_ascii_digit()).map(|byte| char::from(*byte)).collect()
}

/// An answer with another number behind the first `word` of its first line.
fn with_number(answer: &[u8], word: &str, number: &str) -> Vec<u8> {
    let Some(at) = place(answer, word) else { return answer.to_vec() };
    let behind = at + word.len();
    let rest = &answer[behind + digits(&answer[behind..]).len()..];
    [&answer[..behind], number.as_bytes(), rest].concat()
}

/// An answer with the first `word` of its first line replaced.
fn replaced(answer: &[u8], word: &str, by: &str) -> Vec<u8> {
    let Some(at) = place(answer, word) else { return answer.to_vec() };
    [&answer[..at], by.as_bytes(), &answer[at + word.len()..]].concat()
}

fn place(answer: &[u8], word: &str) -> Option<usize> {
    first_line(answer).windows(word.len()).position(|some| some == word.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "* 2 FETCH (UID 7 FLAGS () INTERNALDATE \"x\" RFC822.SIZE 356)\r\n";
    const BODY: &str = "* 2 FETCH (UID 7 BODY[] {6}\r\nab\r\ncd)\r\n";

    fn told(change: &Change, answer: &str) -> String {
        match change.told(answer.as_bytes().to_vec(), "A9", 1) {
            Told::This(said) => String::from_utf8(said).unwrap(),
            Told::Nothing => String::new(),
            Told::Last(said) => format!("{}<end>", String::from_utf8(said).unwrap()),
        }
    }

    #[test]
    fn data_of_messages_are_changed_as_ordered() {
        for (change, answer, expected) in [
            (Change::Sizes(0), LISTED, LISTED.replace("356", "0")),
            (Change::Sequence(1000), BODY, BODY.replace("* 2 ", "* 1002 ")),
            (Change::Without(7), BODY, String::new()),
            (Change::Literal { uid: 7, bytes: 8 }, BODY, BODY.replace("{6}\r\nab\r\ncd", "{8}\r\nab\r\ncdxx")),
            (Change::Literal { uid: 7, bytes: 3 }, BODY, BODY.replace("{6}\r\nab\r\ncd", "{3}\r\nab\r")),
            (Change::Nesting { uid: 7, depth: 3 }, BODY, BODY.replace(" BODY[]", " BODYSTRUCTURE ((())) BODY[]")),
            (Change::BrokenLiteral(String::new()), BODY, "* 2 FETCH (UID 7 BODY[] {6}\r\nab\r<end>".to_owned()),
            (
                Change::BrokenLiteral("* BYE".to_owned()),
                BODY,
                "* 2 FETCH (UID 7 BODY[] {6}\r\nab\r* BYE\r\n<end>".to_owned(),
            ),
        ] {
            assert_eq!(told(&change, answer), expected, "{change:?}");
        }
        let placeholder = answers::placeholder(7);
        let expected = format!("* 2 FETCH (UID 7 BODY[] {{{}}}\r\n{placeholder})\r\n", placeholder.len());
        assert_eq!(told(&Change::Placeholder(7), BODY), expected);
        let huge = told(&Change::Literal { uid: 7, bytes: 99_999_999_999 }, BODY);
        assert!(huge.starts_with("* 2 FETCH (UID 7 BODY[] {99999999999}\r\nab"), "{}", &huge[..60]);
    }

    #[test]
    fn a_batch_is_refused_half_way() {
        let change = |messages| Change::RefusedAfter { messages, status: "NO not now".to_owned() };
        assert_eq!(told(&change(2), BODY), BODY);
        assert_eq!(told(&change(1), BODY), "");
        assert_eq!(told(&change(1), "A9 OK done\r\n"), "A9 NO not now\r\n");
        assert_eq!(told(&change(1), "* 3 EXISTS\r\n"), "* 3 EXISTS\r\n");
    }

    #[test]
    fn codes_are_changed_as_ordered() {
        for (change, answer, expected) in [
            (Change::EmptyCopyUid, "* OK [COPYUID 9 1:2 5:6] Moved\r\n", "* OK [COPYUID 9  ] Moved\r\n"),
            (Change::UidValidity(7), "* OK [UIDVALIDITY 99] x\r\n", "* OK [UIDVALIDITY 7] x\r\n"),
            (Change::BareCodes, "* OK [UIDNEXT 9] x\r\n", "* [UIDNEXT 9] x\r\n"),
            (Change::BareCodes, "A9 OK [READ-WRITE] x\r\n", "A9 OK [READ-WRITE] x\r\n"),
            (Change::Capabilities("IMAP4rev1".to_owned()), "* CAPABILITY X\r\n", "* CAPABILITY IMAP4rev1\r\n"),
        ] {
            assert_eq!(told(&change, answer), expected, "{change:?}");
        }
    }

    #[test]
    fn what_an_order_is_not_about_stays_as_it_is() {
        for change in [
            Change::Without(8),
            Change::Placeholder(8),
            Change::Literal { uid: 8, bytes: 1 },
            Change::Nesting { uid: 8, depth: 9 },
            Change::Sizes(1),
            Change::EmptyCopyUid,
            Change::UidValidity(1),
            Change::BareCodes,
            Change::Before("x".to_owned()),
        ] {
            assert_eq!(told(&change, BODY), BODY, "{change:?}");
        }
        for other in ["* 3 EXISTS\r\n", "A9 OK FETCH (done)\r\n", "* OK [X] y\r\n", "", "* 1 FETCH"] {
            assert_eq!(fetch(other.as_bytes()), None, "{other}");
        }
        assert_eq!(fetch(b"* 1 FETCH (FLAGS ())\r\n"), Some(None));
    }
}
