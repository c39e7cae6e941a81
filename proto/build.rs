//! Compiles `sortinghat/**/*.proto` with protox, so that no `protoc` is needed, and keeps the descriptor set for reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const PROTOS: [&str; 8] = [
    "sortinghat/v1/common.proto",
    "sortinghat/v1/specs.proto",
    "sortinghat/v1/jobs.proto",
    "sortinghat/v1/jobs_service.proto",
    "sortinghat/v1/artifacts.proto",
    "sortinghat/v1/artifacts_service.proto",
    "sortinghat/v1/workers_service.proto",
    "sortinghat/executor/v1/executor.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=sortinghat");
    let descriptors = protox::compile(PROTOS, ["."])?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".sortinghat.v1.UploadObjectRequest.data")
        .bytes(".sortinghat.v1.ReadObjectResponse.data")
        // Ordered, so that the same message is always the same bytes.
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
