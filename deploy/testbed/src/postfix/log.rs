//! What Postfix logs, read as the count of who was connected when and what was taken. Text in, values out.

use std::collections::HashMap;

/// A mail that Postfix took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Who had signed in; empty: nobody.
    pub user: String,
    /// The mail's Message-ID, without brackets.
    pub message_id: String,
}

/// What is to be known of each process, or mail, that the log names.
#[derive(Default)]
struct Reading {
    /// The user of each process that serves a client; empty before its sign-in.
    users: HashMap<String, String>,
    /// The users of mails whose Message-ID has not been told.
    mails: HashMap<String, String>,
    /// Connections of the user that is asked for, now and at most.
    open: usize,
    most: usize,
    taken: Vec<Taken>,
}

/// Most connections of a user that were open at once. One counts from when its first mail begins until it ends, since
/// the log does not tell of a sign-in.
pub(super) fn most_at_once(log: &str, user: &str) -> usize {
    read(log, user).most
}

/// The mails that were taken, in order. Each stands there once its data has begun to come.
pub(super) fn taken(log: &str) -> Vec<Taken> {
    read(log, "").taken
}

fn read(log: &str, user: &str) -> Reading {
    let mut reading = Reading::default();
    for line in log.lines() {
        // "Nov 28 02:57:37 localhost postfix/smtpd[10556]: text"
        let Some((_, line)) = line.split_once(" postfix/") else { continue };
        let Some((process, text)) = line.split_once("]: ") else { continue };
        match process.split_once('[') {
            Some(("smtpd", process)) => reading.smtpd(process, text, user),
            Some(("cleanup", _)) => reading.cleanup(text),
            _ => {}
        }
    }
    reading
}

impl Reading {
    fn smtpd(&mut self, process: &str, text: &str, wanted: &str) {
        if text.starts_with("disconnect from ") || text.starts_with("connect from ") {
            if self.users.remove(process).is_some_and(|user| user == wanted) {
                self.open -= 1;
            }
        } else if let Some((mail, rest)) = text.split_once(": client=") {
            let user = rest.split_once(", sasl_username=").map_or("", |(_, user)| user);
            self.mails.insert(mail.to_owned(), user.to_owned());
            if self.users.insert(process.to_owned(), user.to_owned()).is_none() && user == wanted {
                self.open += 1;
                self.most = self.most.max(self.open);
            }
        }
    }

    fn cleanup(&mut self, text: &str) {
        let Some((mail, id)) = text.split_once(": message-id=") else { return };
        // One without a client is Postfix's own.
        if let Some(user) = self.mails.remove(mail) {
            let message_id = id.trim_start_matches('<').trim_end_matches('>').to_owned();
            self.taken.push(Taken { user, message_id });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
Nov 28 02:58:35 localhost postfix/smtpd[11]: connect from unknown[127.0.0.1]
Nov 28 02:58:35 localhost postfix/smtpd[12]: connect from unknown[127.0.0.1]
Nov 28 02:58:35 localhost postfix/smtpd[11]: D1: client=unknown[127.0.0.1], sasl_method=XOAUTH2, sasl_username=a@b.example
Nov 28 02:58:35 localhost postfix/cleanup[20]: D1: message-id=<one@x>
Nov 28 02:58:35 localhost postfix/smtpd[12]: D2: client=unknown[127.0.0.1], sasl_method=PLAIN, sasl_username=c@b.example
Nov 28 02:58:35 localhost postfix/cleanup[20]: D2: message-id=<two@x>
Nov 28 02:58:35 localhost postfix/smtpd[11]: D3: client=unknown[127.0.0.1], sasl_method=XOAUTH2, sasl_username=a@b.example
Nov 28 02:58:35 localhost postfix/smtpd[11]: disconnect from unknown[127.0.0.1] ehlo=2
Nov 28 02:58:36 localhost postfix/smtpd[11]: connect from unknown[127.0.0.1]
Nov 28 02:58:36 localhost postfix/smtpd[13]: connect from unknown[127.0.0.1]
Nov 28 02:58:36 localhost postfix/smtpd[11]: D4: client=unknown[127.0.0.1], sasl_method=XOAUTH2, sasl_username=a@b.example
Nov 28 02:58:36 localhost postfix/smtpd[13]: D5: client=unknown[127.0.0.1], sasl_method=XOAUTH2, sasl_username=a@b.example
Nov 28 02:58:36 localhost postfix/cleanup[20]: D9: message-id=<bounce@localhost>
Nov 28 02:58:36 localhost postfix/smtpd[14]: D6: client=unknown[127.0.0.1]
";

    #[test]
    fn connections_and_mails_are_counted_by_who_signed_in() {
        assert_eq!(most_at_once(LOG, "a@b.example"), 2);
        assert_eq!(most_at_once(LOG, "c@b.example"), 1);
        assert_eq!(most_at_once(LOG, "nobody@b.example"), 0);
        let taken = |user: &str, id: &str| Taken { user: user.to_owned(), message_id: id.to_owned() };
        assert_eq!(super::taken(LOG), [taken("a@b.example", "one@x"), taken("c@b.example", "two@x")]);
    }
}
