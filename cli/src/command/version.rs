//! `version`: this command's, and the control plane's.

use postroom_proto::{v1, version};

use super::Session;
use crate::args::Version;
use crate::error::Error;
use crate::render::table;

pub(super) async fn run(session: &mut Session<'_, '_>, args: &Version) -> Result<(), Error> {
    let mut versions = v1::Versions { client: Some(version::own()), ..v1::Versions::default() };
    // The command's own version is told whatever becomes of the control plane: it is half of the question.
    let asked = if args.client { Ok(()) } else { ask(session, &mut versions).await };
    session.show(&versions, shown)?;
    asked
}

async fn ask(session: &Session<'_, '_>, versions: &mut v1::Versions) -> Result<(), Error> {
    let client = session.client()?;
    versions.server = Some(client.get_version().await?);
    versions.endpoint = client.endpoint().to_owned();
    Ok(())
}

fn shown(versions: &v1::Versions) -> String {
    let mut pairs = Vec::new();
    if let Some(client) = &versions.client {
        pairs.push(("postroom", version::text(client)));
    }
    if let Some(server) = &versions.server {
        pairs.push(("control plane", format!("{} at {}", version::text(server), versions.endpoint)));
    }
    table::pairs(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_shown_as_far_as_they_are_known() {
        let version = |version: &str| v1::Version { version: version.into(), commit: "3f2a9c1d0b7e".into() };
        let mut versions = v1::Versions { client: Some(version("0.2.0")), ..v1::Versions::default() };
        assert_eq!(shown(&versions), "postroom:  0.2.0 (3f2a9c1d0b7e)\n");
        versions.server = Some(version("0.1.0"));
        versions.endpoint = "http://127.0.0.1:7430".into();
        let expected =
            "postroom:       0.2.0 (3f2a9c1d0b7e)\ncontrol plane:  0.1.0 (3f2a9c1d0b7e) at http://127.0.0.1:7430\n";
        assert_eq!(shown(&versions), expected);
    }
}
