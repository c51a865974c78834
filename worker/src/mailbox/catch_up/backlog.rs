//! Old messages that wait and are released: read by a mark of their own, behind what is new.

use super::{MAX_WINDOW, Planned, Reader, Stage, WINDOW};
use crate::mailbox::backlog::Step;
use crate::mailbox::imap::command::{Error, Stream};
use crate::mailbox::imap::fetch::{Summary, summaries};

/// Narrowest window of a small step. A window is looked at anew by the next step when this one did not come to its end.
const NARROWEST: u32 = 64;
/// Most windows of a step: then what was passed over is committed, and new mail is looked at.
const MOST_WINDOWS: u32 = 16;

impl<'f, S: Stream + std::fmt::Debug> Reader<'f, S> {
    /// The same reader, which also reads such messages of the folder: one step of them.
    pub fn with_step(mut self, step: Option<Step>) -> Self {
        self.back_width = step.map_or(0, |step| step.count.saturating_mul(4).clamp(NARROWEST, WINDOW));
        self.step = step;
        self
    }

    /// True when messages wait behind where it has read.
    pub(super) fn waits(&self) -> bool {
        self.cursor.waiting().is_some()
    }

    /// True when this pending message is to be left alone: it waited, was taken and failed, and since then was held back.
    pub(super) fn is_held_back(&self, uid: u32) -> bool {
        self.step.is_none() && self.waits() && self.cursor.is_old(uid)
    }

    /// Plans the next window of what waits. Only called when nothing is planned, so that the cursor stands behind the last
    /// one.
    pub(super) async fn look_back(&mut self) -> Result<(), Error> {
        let (Some(mut step), Some((from, last))) = (self.step.filter(|step| step.count > 0), self.cursor.waiting())
        else {
            self.stage = Stage::End;
            return Ok(());
        };
        if self.back_windows == MOST_WINDOWS {
            self.stage = Stage::End;
            return Ok(());
        }
        self.back_windows += 1;
        if let Some(item) = self.care.known(from) {
            self.planned.push_back(Planned::Ready(item));
            step.count -= 1;
            self.step = Some(step);
            return Ok(());
        }
        let width = self.care.window().unwrap_or(self.back_width);
        let culprit = self.care.next_known(from).map_or(last, |uid| uid - 1);
        let mut to = from.saturating_add(width - 1).min(last).min(culprit);
        let found = match summaries(&mut self.folder.commands, from, Some(to)).await {
            Ok(found) => found,
            Err(error) => {
                self.care.blame_window(&self.cursor, (to == from).then_some(from), width, &error);
                return Err(error);
            }
        };
        if found.len() < width as usize / 10 && self.care.window().is_none() {
            self.back_width = (self.back_width * 4).min(MAX_WINDOW);
        }
        for summary in &found {
            if self.is_too_old(summary, &step) {
                self.planned.push_back(Planned::Leave(summary.uid, step.since.unwrap_or_default()));
                continue;
            }
            let planned = self.plan(*summary);
            if !matches!(planned, Planned::Pass(_)) {
                if step.count == 0 {
                    to = summary.uid - 1;
                    break;
                }
                step.count -= 1;
            }
            self.planned.push_back(planned);
        }
        self.planned.push_back(Planned::Pass(to));
        self.step = Some(step);
        Ok(())
    }

    /// The start policy takes it, and the operator does not. A time that the server does not say is no reason to leave it.
    fn is_too_old(&self, summary: &Summary, step: &Step) -> bool {
        let received = summary.received;
        let old = step.since.is_some_and(|since| received.is_some_and(|received| received < since));
        old && self.cursor.takes(summary.uid, summary.seen, received)
    }
}
