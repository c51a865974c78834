//! `explain`: what a code means, without asking anybody.

use postroom_proto::catalogue::{self, Entry};
use postroom_proto::v1;

use super::Session;
use crate::args::Explain;
use crate::error::{Error, Kind};
use crate::render::{table, words};

pub(super) fn run(session: &mut Session<'_, '_>, args: &Explain) -> Result<(), Error> {
    let wanted = args.code.join(" ");
    if wanted.trim().is_empty() {
        let all = explanations(catalogue::all());
        return session.show(&all, |all| list(&all.explanations));
    }
    let found = match catalogue::find(&wanted) {
        Some(entry) => vec![entry],
        None => catalogue::find_text(&wanted),
    };
    if found.is_empty() {
        return Err(unknown(&wanted));
    }
    session.show(&explanations(found), |found| found.explanations.iter().map(show).collect::<Vec<_>>().join("\n"))
}

fn unknown(wanted: &str) -> Error {
    let near = catalogue::near(wanted);
    let help = if near.is_empty() {
        "`postroom explain` lists all codes; a number that Entra added later is described at \
         https://login.microsoftonline.com/error?code=NUMBER"
            .to_owned()
    } else {
        format!("did you mean {}? `postroom explain` lists all codes", near.join(", "))
    };
    Error::new(Kind::NotFound, format!("no code {wanted:?} is known")).help(help)
}

fn explanations(entries: impl IntoIterator<Item = &'static Entry>) -> v1::Explanations {
    let explain = |entry: &Entry| v1::Explanation {
        codes: entry.codes.iter().map(|code| (*code).to_owned()).collect(),
        kind: entry.kind.into(),
        transient: entry.passes(),
        title: entry.title.into(),
        cause: entry.cause.into(),
        remedy: entry.remedy.into(),
        texts: entry.texts.iter().map(|text| (*text).to_owned()).collect(),
    };
    v1::Explanations { explanations: entries.into_iter().map(explain).collect() }
}

fn list(explanations: &[v1::Explanation]) -> String {
    let rows = explanations
        .iter()
        .flat_map(|one| one.codes.iter().map(|code| [code.clone(), words::problem_kind(one.kind), one.title.clone()]));
    table::rows(["CODE", "KIND", "MEANING"], rows)
}

fn show(one: &v1::Explanation) -> String {
    let passes = if one.transient { "by itself" } else { "once it is mended" };
    let mut pairs = vec![
        ("code", one.codes.join(", ")),
        ("meaning", one.title.clone()),
        ("kind", words::problem_kind(one.kind)),
        ("passes", passes.to_owned()),
    ];
    if !one.cause.is_empty() {
        pairs.push(("cause", one.cause.clone()));
    }
    pairs.push(("remedy", one.remedy.clone()));
    if !one.texts.is_empty() {
        pairs.push(("servers say", one.texts.join(" | ")));
    }
    table::pairs(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(code: &str) -> String {
        show(&explanations(catalogue::find(code)).explanations[0])
    }

    #[test]
    fn a_code_is_explained_with_cause_and_remedy() {
        insta::assert_snapshot!(shown("7000215"));
        insta::assert_snapshot!(shown("NOT_CONNECTED"));
    }

    #[test]
    fn the_list_has_every_code() {
        let all = list(&explanations(catalogue::all()).explanations);
        for code in catalogue::all().flat_map(|entry| entry.codes) {
            assert!(all.contains(code), "{code}");
        }
    }

    #[test]
    fn an_unknown_code_is_answered_with_its_neighbours() {
        insta::assert_snapshot!(unknown("AADSTS700215").render());
        insta::assert_snapshot!(unknown("nonsense").render());
    }
}
