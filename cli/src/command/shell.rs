//! `completions` and `man`: what a shell and `man` need to know of the command line. They ask no control plane.

use crate::args::{self, Completions, Man};
use crate::error::{Error, Kind};

use super::Session;

pub(super) fn completions(session: &mut Session<'_, '_>, args: &Completions) -> Result<(), Error> {
    session.only_bytes("the output is a script of the shell")?;
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "postroom", &mut script);
    session.write(&script)
}

pub(super) fn man(session: &mut Session<'_, '_>, args: &Man) -> Result<(), Error> {
    session.only_bytes("the pages are written into the folder")?;
    let written =
        std::fs::create_dir_all(&args.folder).and_then(|()| clap_mangen::generate_to(args::command(), &args.folder));
    written.map_err(|source| {
        Error::new(Kind::Usage, format!("cannot write man pages into {}: {source}", args.folder.display()))
            .help("name a folder that can be written")
    })?;
    session.note(&format!("read them with `man -l {}`", args.folder.join("postroom.1").display()));
    Ok(())
}
