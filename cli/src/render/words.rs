//! Enum values as people write them: the words of the model file and of the command line.

use postroom_proto::v1;

/// A word for an enum value: the name without its prefix, lower case, with hyphens. Values of a newer control plane
/// are shown by number.
fn word(number: i32, name: Option<&str>, prefix: &str) -> String {
    match name.map(|name| name.trim_start_matches(prefix)) {
        None => format!("unknown-{number}"),
        Some("UNSPECIFIED") => String::new(),
        Some(name) => name.to_lowercase().replace('_', "-"),
    }
}

macro_rules! words {
    ($($(#[$doc:meta])* $function:ident: $enum:ident, $prefix:literal;)*) => {$(
        $(#[$doc])*
        pub fn $function(number: i32) -> String {
            word(number, v1::$enum::try_from(number).ok().map(|value| value.as_str_name()), $prefix)
        }
    )*};
}

words! {
    /// `strict`, `target-time`.
    allocation: AllocationPolicy, "ALLOCATION_POLICY_";
    /// `oauth-user`, `oauth-service`, `password`.
    authentication: Authentication, "AUTHENTICATION_";
    /// `oauth-service`, `oauth-user`, `password`, `none`.
    outgoing_authentication: OutgoingAuthentication, "OUTGOING_AUTHENTICATION_";
    /// `graph`, `smtp`.
    transport: Transport, "TRANSPORT_";
    /// `queued`, `sending`, `sent`, `unknown`, `failed`, `bounced`.
    outbox_state: OutboxState, "OUTBOX_STATE_";
    /// `to`, `cc`, `bcc`.
    recipient_kind: RecipientKind, "RECIPIENT_KIND_";
    /// `pending`, `accepted`, `refused`, `bounced`.
    recipient_state: RecipientState, "RECIPIENT_STATE_";
    /// `starttls`, `tls`, `none`.
    smtp_security: SmtpSecurity, "SMTP_SECURITY_";
    /// `server`, `none`.
    sent_copy: SentCopy, "SENT_COPY_";
    /// `tls`.
    security: Security, "SECURITY_";
    /// `unseen`, `new`, `all`, `since`.
    start: StartPolicy, "START_POLICY_";
    /// `seen`, `move`, `leave`, `delete`.
    after_intake: AfterIntakePolicy, "AFTER_INTAKE_POLICY_";
    /// `unassigned`, `connecting`, `catching-up`, `rekeying`, `idle`, `failing`, `backlog`.
    mailbox_state: MailboxState, "MAILBOX_STATE_";
    /// `waiting`, `releasing`, `stopped`, `finished`.
    backlog_state: BacklogState, "BACKLOG_STATE_";
    /// `approved`, `stopped`.
    backlog_decision: BacklogDecisionKind, "BACKLOG_DECISION_KIND_";
    /// `queued`, `allocated`, `accepted`, `ended`, `dead`.
    contact_state: ContactState, "CONTACT_STATE_";
    /// `normal`, `auto-reply`, `bounce`, `receipt`, `bulk`, `calendar`.
    contact_kind: ContactKind, "CONTACT_KIND_";
    /// `done`, `failed`, `refused`, `unknown`.
    audit_outcome: AuditOutcome, "AUDIT_OUTCOME_";
    /// `contact`, `quarantined`, `too-large`, `vanished`, `filtered`, `duplicate`.
    disposition: Disposition, "DISPOSITION_";
    /// `discarded`, `replayed`.
    message_decision: MessageDecisionKind, "MESSAGE_DECISION_KIND_";
    /// `missing`, `pending`, `gone`, …
    finding_kind: FindingKind, "FINDING_KIND_";
    /// `live`, `silent`, `stopping`, `returning`, `gone`.
    worker_state: WorkerState, "WORKER_STATE_";
    /// `token`, `enrolment`, `certificate`.
    credential_kind: CredentialKind, "CREDENTIAL_KIND_";
    /// `active`, `spare`.
    worker_role: WorkerRole, "WORKER_ROLE_";
    /// `new`, `worker-silent`, `operator`, `balance`, …
    move_reason: MoveReason, "MOVE_REASON_";
    /// `no-worker`, `no-capacity`, `worker-returns`, …
    unassigned_reason: UnassignedReason, "UNASSIGNED_REASON_";
    /// `ours`, `foreign`, `empty`, `behind`, `other-ledger`.
    store_fit: StoreFit, "STORE_FIT_";
    /// `transient`, `throttled`, …
    problem_kind: ProblemKind, "PROBLEM_KIND_";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_model_file() {
        assert_eq!(authentication(v1::Authentication::OauthService.into()), "oauth-service");
        assert_eq!(mailbox_state(v1::MailboxState::CatchingUp.into()), "catching-up");
        assert_eq!(contact_state(0), "");
        assert_eq!(start(4711), "unknown-4711");
    }
}
