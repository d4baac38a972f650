//! Generates the protocol's types from `proto/`, without `protoc`.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "envoy/service/ext_proc/v3/external_processor.proto",
        "grpc/health/v1/health.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".envoy")
        .codec_path("crate::codec::SmallBuffers")
        .extern_path(
            ".envoy.config.core.v3.Metadata",
            "crate::metadata::Metadata",
        )
        .include_file("all.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
