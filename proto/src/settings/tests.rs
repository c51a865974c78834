use std::time::Duration;

use super::*;

const SETTINGS: &[Setting] = &[
    Setting { name: "name", value: "NAME", default: Default::Nothing("that of the host"), help: "Who it is" },
    Setting { name: "token-file", value: "FILE", default: Default::Required, help: "Holds the token" },
    Setting { name: "insecure", value: "", default: Default::Is("false"), help: "Plaintext is allowed" },
    Setting { name: "urls", value: "URL", default: Default::Is("http://127.0.0.1:1"), help: "Where to call" },
    Setting { name: "lease.ttl", value: "TIME", default: Default::Is("12s"), help: "How long it lasts" },
    Setting { name: "lease.margin", value: "TIME", default: Default::Is("1s"), help: "How much less it is trusted" },
];

const PROGRAM: Program =
    Program { name: "test", about: "For tests", prefix: "POSTROOM_TEST_", settings: SETTINGS, examples: "" };

fn gathered(args: &[&str], variables: &[(&str, &str)], file: &str) -> Settings {
    let matches = PROGRAM.command().try_get_matches_from([&["test"], args].concat()).unwrap();
    let typed = PROGRAM.typed(&matches, |_| None);
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let file = Some((Path::new("/etc/test.toml"), file));
    Settings::gather(PROGRAM, &Sources { typed: &typed, variables, file })
}

fn faults(mut settings: Settings) -> Vec<String> {
    settings.path("token-file");
    settings.value("insecure", form::switch);
    settings.value("lease.ttl", form::duration);
    settings.value("lease.margin", form::duration);
    settings.end().err().map_or_else(Vec::new, |refusal| refusal.faults.iter().map(ToString::to_string).collect())
}

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_the_default() {
    let file = "token-file = \"from-file\"\n[lease]\nttl = \"3s\"\nmargin = \"3s\"\n";
    let variables = [("POSTROOM_TEST_LEASE_TTL", "2s"), ("POSTROOM_TEST_INSECURE", "true"), ("POSTROOM_OTHER", "x")];
    let mut settings = gathered(&["--lease-ttl", "1s"], &variables, file);
    assert_eq!(settings.value("lease.ttl", form::duration), Duration::from_secs(1));
    assert_eq!(settings.value("lease.margin", form::duration), Duration::from_secs(3));
    assert!(settings.value("insecure", form::switch));
    assert_eq!(settings.value("urls", form::list(form::text)), ["http://127.0.0.1:1"]);
    assert_eq!(settings.optional("name", form::name), None);
    assert_eq!(settings.path("token-file"), Some("/etc/from-file".into()), "from the folder of the file on");
    settings.end().unwrap();
    let expected = "# name: that of the host # default
token-file = \"from-file\" # /etc/test.toml
insecure = true # POSTROOM_TEST_INSECURE
urls = \"http://127.0.0.1:1\" # default

[lease]
ttl = \"1s\" # --lease-ttl
margin = \"3s\" # /etc/test.toml
";
    assert_eq!(settings.show(), expected);
}

#[test]
fn every_fault_is_told_at_once_with_its_source_and_a_remedy() {
    let settings = gathered(
        &["--insecure=perhaps"],
        &[("POSTROOM_TEST_LEASE_MARGIN", "soon"), ("POSTROOM_TEST_TOKENFILE", "x")],
        "tokenfile = \"x\"\nlease.ttll = 3\n[lease]\n[[name]]\n",
    );
    // TOML itself refuses a table that is defined twice, so the file as a whole is at fault.
    assert!(faults(settings).iter().any(|fault| fault.starts_with("line 3 (/etc/test.toml): ")));

    let settings = gathered(
        &["--insecure=perhaps"],
        &[("POSTROOM_TEST_LEASE_MARGIN", "soon"), ("POSTROOM_TEST_TOKENFILE", "x")],
        "tokenfile = \"x\"\nquite-different = 1\nurls = {a = 1}\n[lease]\nttl = 3\nttll = 3\n",
    );
    let expected = [
        "lease.ttll (/etc/test.toml): is not known; did you mean lease.ttl?",
        "quite-different (/etc/test.toml): is not known; take it out, or see --help for what there is",
        "tokenfile (/etc/test.toml): is not known; did you mean token-file?",
        "urls (/etc/test.toml): is no value; write a text, a number, true or false, or a list of texts",
        "POSTROOM_TEST_TOKENFILE (environment): is not known; did you mean POSTROOM_TEST_TOKEN_FILE?",
        "token-file: is missing; write it into the file, or say --token-file FILE or POSTROOM_TEST_TOKEN_FILE",
        "insecure (--insecure): \"perhaps\" is neither true nor false; write one of them",
        "lease.ttl (/etc/test.toml): \"3\" is no length of time; write one such as 500ms, 2s or 1m30s",
        "lease.margin (POSTROOM_TEST_LEASE_MARGIN): \"soon\" is no length of time; write one such as 500ms, 2s or 1m30s",
    ];
    assert_eq!(faults(settings), expected);
}

#[test]
fn a_table_written_as_a_value_and_a_broken_file_are_told() {
    let told = faults(gathered(&["--token-file", "t"], &[], "lease = 3"));
    assert_eq!(told, ["lease (/etc/test.toml): is a table; write [lease] and its settings below it"]);
    let told = faults(gathered(&["--token-file", "t"], &[], "name = \"a\"\nname"));
    assert!(told[0].starts_with("line 2 (/etc/test.toml): "), "{told:?}");
}

#[test]
fn a_switch_needs_no_value_and_a_list_is_a_list() {
    let mut settings = gathered(&["--insecure"], &[], "token-file = \"/t\"\nurls = [\"a\", \"b\"]\n");
    assert!(settings.value("insecure", form::switch));
    assert_eq!(settings.value("urls", form::list(form::text)), ["a", "b"]);
    assert_eq!(settings.path("token-file"), Some("/t".into()));
}

#[test]
fn passwords_in_urls_are_not_shown() {
    let settings = gathered(&[], &[], "urls = \"etcd://root:planted@h:1/p,http://h:2\"\ntoken-file = \"t\"");
    let shown = settings.show();
    assert!(shown.contains("etcd://root:[redacted]@h:1/p,http://h:2") && !shown.contains("planted"), "{shown}");
}

#[test]
fn values_have_the_forms_that_their_errors_name() {
    assert_eq!(form::bytes("256MiB"), Ok(256 << 20));
    assert_eq!(form::bytes("1048576"), Ok(1 << 20));
    assert!(form::bytes("1 TB").is_err() && form::bytes("0").is_err() && form::bytes("99999999999GiB").is_err());
    assert_eq!(form::duration("1m30s"), Ok(Duration::from_secs(90)));
    assert!(form::duration("-2s").is_err() && form::some_time("0s").is_err());
    assert!(form::some("0").is_err() && form::count("1.5").is_err());
    assert!(form::address("localhost").is_err() && form::name("No").is_err());
    let choice = form::choice(&[("text", 1), ("json", 2)]);
    assert_eq!(choice("json"), Ok(2));
    assert_eq!(choice("xml"), Err("\"xml\" is not known here; write text or json".to_owned()));
}
