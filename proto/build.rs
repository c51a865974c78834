//! Compiles the protos with protox, so that no protoc is needed.

use std::path::PathBuf;

const FILES: [&str; 12] = [
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
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
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
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}
