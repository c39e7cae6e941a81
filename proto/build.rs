//! Compiles `sortinghat/**/*.proto` with protox, so that no `protoc` is needed, and keeps the descriptor set for reflection.

use std::{env, error::Error, fs, io, path::PathBuf};

use prost::Message as _;

/// The folders that hold the .proto files, one for each package.
const PACKAGES: [&str; 2] = ["sortinghat/v1", "sortinghat/executor/v1"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=sortinghat");
    let descriptors = protox::compile(protos()?, ["."])?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::Config::new();
    // A message then knows its name, by which `json` finds its fields among the descriptors.
    config.enable_type_names();
    // The names under which messages are packed as `Any`, in the form that the libraries of all languages expect.
    config.type_name_domain(["."], "type.googleapis.com");
    tonic_prost_build::configure()
        .bytes(".sortinghat.v1.UploadObjectRequest.data")
        .bytes(".sortinghat.v1.UploadObjectsRequest.data")
        .bytes(".sortinghat.v1.ReadObjectResponse.data")
        // Maps are ordered, so that the same message is always encoded as the same bytes.
        .btree_map(".")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

/// The .proto files of all packages, sorted so that the descriptor set does not depend on the file system.
fn protos() -> io::Result<Vec<PathBuf>> {
    let mut protos = Vec::new();
    for package in PACKAGES {
        for entry in fs::read_dir(package)? {
            protos.push(entry?.path());
        }
    }
    protos.sort();
    Ok(protos)
}
