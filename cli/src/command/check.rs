//! `mailbox check` and `incoming-server check`: what was tried, step by step, as it comes.

use postroom_proto::convert::from_duration;
use postroom_proto::v1::{self, CheckOutcome};

use super::Session;
use crate::client::Steps;
use crate::error::{Error, Kind};
use crate::render::style::{self, Tone};
use crate::render::{table, text, words};

/// Follows a check to its end. A step that failed makes it a failure.
pub(super) async fn follow(session: &mut Session<'_, '_>, mut steps: Steps) -> Result<(), Error> {
    let mut failed = Vec::new();
    while let Some(step) = steps.next().await? {
        session.show_item(&step, row)?;
        if step.outcome() == CheckOutcome::Failed {
            failed.push(step);
        }
    }
    let Some(first) = failed.first() else { return Ok(()) };
    let names: Vec<&str> = failed.iter().map(|step| step.name.as_str()).collect();
    let problem = first.problem.clone().unwrap_or_default();
    let message = format!("the check failed at {}: {}", names.join(", "), problem.code);
    Err(Error::new(Kind::NotWell, message).help(problem.remedy))
}

/// One step in a line, and below it what is wrong.
fn row(step: &v1::CheckStep) -> String {
    let (word, tone) = match step.outcome() {
        CheckOutcome::Ok => ("ok", Tone::Good),
        CheckOutcome::Warning => ("warning", Tone::Waiting),
        CheckOutcome::Failed => ("failed", Tone::Bad),
        CheckOutcome::Skipped | CheckOutcome::Unspecified => ("skipped", Tone::Label),
    };
    let took = step.duration.as_ref().and_then(from_duration);
    let took = took.map(|took| format!("{} ms", took.as_millis())).unwrap_or_default();
    let line = format!("{:<11} {:>9}  {}", text::line(&step.name), took, text::line(&step.detail));
    let mut shown = format!("{} {}\n", style::paint(tone, &format!("{word:<8}")), line.trim_end());
    if let Some(problem) = &step.problem {
        let kind = words::problem_kind(problem.kind);
        let passes = if passes(problem) { "passes by itself" } else { "has to be mended" };
        shown += &table::indented(2, &format!("{} ({kind}: {passes})", problem.code));
        shown += &table::indented(2, &format!("cause: {}", problem.cause));
        shown += &table::indented(2, &format!("remedy: {}", problem.remedy));
    }
    shown
}

fn passes(problem: &v1::Problem) -> bool {
    postroom_proto::catalogue::passes(problem.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_line_with_what_is_wrong_below() {
        let ok = v1::CheckStep {
            name: "dns".into(),
            outcome: CheckOutcome::Ok.into(),
            duration: Some(postroom_proto::convert::to_duration(std::time::Duration::from_millis(12))),
            detail: "outlook.office365.com is 192.0.2.7".into(),
            problem: None,
        };
        let failed = v1::CheckStep {
            name: "token".into(),
            outcome: CheckOutcome::Failed.into(),
            detail: String::new(),
            problem: Some(v1::Problem {
                kind: v1::ProblemKind::Configuration.into(),
                code: "AADSTS7000215".into(),
                cause: "the client secret is wrong".into(),
                remedy: "store its Value".into(),
                ..v1::Problem::default()
            }),
            ..ok
        };
        let skipped = v1::CheckStep {
            name: "sign-in".into(),
            outcome: CheckOutcome::Skipped.into(),
            detail: "there is no token".into(),
            ..v1::CheckStep::default()
        };
        insta::assert_snapshot!([ok, failed, skipped].iter().map(row).collect::<String>());
    }
}
