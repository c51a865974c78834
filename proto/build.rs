//! Compiles the protos with protox, so that no protoc is needed.

use std::path::{Path, PathBuf};
use std::process::Command;

const FILES: [&str; 15] = [
    "postroom/v1/access.proto",
    "postroom/v1/error.proto",
    "postroom/v1/definition.proto",
    "postroom/v1/lease.proto",
    "postroom/v1/contact.proto",
    "postroom/v1/report.proto",
    "postroom/v1/operator.proto",
    "postroom/v1/errand.proto",
    "postroom/v1/message.proto",
    "postroom/v1/backup.proto",
    "postroom/v1/worker.proto",
    "postroom/v1/store.proto",
    "postroom/v1/outbox.proto",
    "postroom/v1/secret.proto",
    "postroom/v1/audit.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rustc-env=POSTROOM_COMMIT={}", commit());
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(FILES)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // The raw set keeps custom options and comments that the decoded one would lose.
    std::fs::write(out.join("descriptor_set.bin"), compiler.encode_file_descriptor_set())?;

    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .bytes(".postroom.v1.ReportedMessage.raw_message")
        .bytes(".postroom.v1.UploadBlobRequest.chunk")
        .bytes(".postroom.v1.RawMessageChunk.data")
        .bytes(".postroom.v1.FetchTask.raw_message")
        .bytes(".postroom.v1.CreateBackupResponse.chunk")
        .bytes(".postroom.v1.AttachmentChunk.data")
        .bytes(".postroom.v1.ComposeRequest.chunk")
        .bytes(".postroom.v1.ClaimedMail.raw")
        // Invariant: no message that carries a secret prints it; `redact.rs` writes their Debug by hand.
        .skip_debug(["postroom.v1.SecretInput", "postroom.v1.MailboxDefinition", "postroom.v1.OutgoingDefinition"])
        .skip_debug(["postroom.v1.CreateTokenResponse", "postroom.v1.EnrollWorkerResponse"])
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}

/// The commit that is built: what the environment says, else what git says of an optimised build. Empty when neither knows,
/// as in sources without their history. A debug build does not ask: each commit would compile everything anew.
fn commit() -> String {
    println!("cargo:rerun-if-env-changed=POSTROOM_COMMIT");
    if let Some(said) = std::env::var("POSTROOM_COMMIT").ok().filter(|said| !said.is_empty()) {
        return said;
    }
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return String::new();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for file in [".git/HEAD", ".git/index"] {
        // A file that is missing would run this script at every build.
        if root.join(file).exists() {
            println!("cargo:rerun-if-changed=../{file}");
        }
    }
    // A checkout of another project, in which these sources may lie, is none of ours.
    let ours = git(&root, &["rev-parse", "--show-toplevel"]).map(PathBuf::from).and_then(|top| top.canonicalize().ok());
    if ours.is_none() || ours != root.canonicalize().ok() {
        return String::new();
    }
    let Some(head) = git(&root, &["rev-parse", "--short=12", "HEAD"]) else { return String::new() };
    match git(&root, &["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => head,
        _ => format!("{head}-changed"),
    }
}

fn git(root: &Path, args: &[&str]) -> Option<String> {
    let done = Command::new("git").arg("-C").arg(root).args(args).output().ok()?;
    let said = String::from_utf8(done.stdout).ok()?;
    done.status.success().then(|| said.trim().to_owned())
}
