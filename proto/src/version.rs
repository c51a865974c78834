//! Which version of Postroom this is.

use crate::v1;

/// The version that all crates share, for example `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// First digits of the commit that this was built of, with `-changed` when files had been changed. Empty in debug builds and
/// in sources without their history.
pub const COMMIT: &str = env!("POSTROOM_COMMIT");

/// Both, as `--version` shows them.
pub fn full() -> String {
    text(&own())
}

/// This version, as it goes over the wire.
pub fn own() -> v1::Version {
    v1::Version { version: VERSION.into(), commit: COMMIT.into() }
}

/// A version as people read it: `0.1.0 (3f2a9c1d0b7e)`.
pub fn text(version: &v1::Version) -> String {
    match version.commit.as_str() {
        "" => version.version.clone(),
        commit => format!("{} ({commit})", version.version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_stands_behind_the_version_where_it_is_known() {
        let version = |commit: &str| text(&v1::Version { version: "1.2.3".into(), commit: commit.into() });
        assert_eq!(version("3f2a9c1d0b7e"), "1.2.3 (3f2a9c1d0b7e)");
        assert_eq!(version(""), "1.2.3");
        assert!(full().starts_with(VERSION));
    }
}
