//! Contacts: the order in which they are handed out, and how they change state.
