//! Rules that can be switched off one at a time. All of it happens in the simulation's own shell: the desk and the
//! holder are told lies, or what they say is altered.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// Trust is counted from the receipt of an answer.
    AnchorAtReceipt,
    /// A new leader believes that it has been in office for long.
    NoGrace,
    /// The leader believes that whoever was asked has let go.
    ReleaseNotAwaited,
    /// The answer to an abandoned heartbeat is taken for one to the heartbeat under way.
    LateAnswersAccepted,
    /// While the write that moves it is in flight, a mailbox is offered to its old owner.
    OfferedInFlight,
    /// Writes of a leader are not guarded by its key.
    NoLeaderCompare,
    /// A leader whose trust has lapsed goes on with what it knew once it has confirmed its office.
    OfficeKept,
    /// A leader whose trust has lapsed makes rounds until it notices.
    RoundUntrusted,
    /// The desk sees a crowd of workers that always speak, so that half of them are never silent.
    BrakeReleased,
    /// Reports are not compared with the fence.
    NoFence,
    /// Whoever asks opens a mailbox, whatever epoch it names.
    OpenUnchecked,
    /// What should go back from a spare never does.
    SpareKeeps,
    /// The planner is told that all mailboxes are of one pool.
    PoolIgnored,
    /// The leader never hears that a drain was taken back.
    DrainForgotten,
    /// Reports are not compared with the cursor.
    NoCursorCompare,
    /// Workers go on when their trust has lapsed.
    SuspensionIgnored,
    /// A worker whose trust has lapsed closes everything.
    SuspensionCloses,
    /// A mailbox that was to begin later begins, whatever became of its lease meanwhile.
    RampUnchecked,
    /// Every mailbox begins later, also those that another worker let go.
    RampForAll,
    /// Outcomes of opening several mailboxes are taken in the order in which these were asked for.
    OutcomesByPlace,
    /// When one mailbox cannot be opened, none of those that were asked for with it is.
    OneFailureFailsAll,
}
