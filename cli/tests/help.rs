//! The help of every command, as golden files: what people and scripts rely on.

use clap::CommandFactory as _;

#[test]
fn the_help_of_every_command() {
    let mut command = postroom_cli::args::Cli::command().term_width(100);
    command.build();
    let mut nouns = vec![(String::from("postroom"), command)];
    while let Some((path, mut command)) = nouns.pop() {
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            nouns.push((format!("{path} {}", verb.get_name()), verb.clone().term_width(100)));
        }
        let name = path.replace(' ', "_");
        insta::assert_snapshot!(name, command.render_long_help().to_string());
    }
}
