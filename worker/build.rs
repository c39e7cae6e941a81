//! Builds the ATen shim and points the linker and the loader at libtorch.

use std::path::Path;
use std::{env, fs, process};

/// The only libtorch that tch 0.24 is built and tested against.
const LIBTORCH_VERSION: &str = "2.11.0";

fn main() {
    for path in ["build.rs", "aten/aten.cpp"] {
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").unwrap_or_else(|_| fail("torch-sys names no libtorch"));
    let lib = Path::new(&lib);
    let root = lib.parent().unwrap_or_else(|| fail("libtorch's lib folder has no parent"));
    check_version(root);
    compile_shim(root);
    // The loader then finds libtorch without LD_LIBRARY_PATH, which can still override it.
    println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    // tch loads libtorch_cuda itself only if it stands in the link line; we load it at start instead (device.rs).
    println!("cargo:rustc-env=SORTINGHAT_LIBTORCH_LIB={}", lib.display());
}

/// torch-sys does not check a wheel's version, and another one fails much later, in the linker or at run time.
fn check_version(root: &Path) {
    let file = root.join("version.py");
    println!("cargo:rerun-if-changed={}", file.display());
    let text = fs::read_to_string(&file)
        .unwrap_or_else(|_| fail(&format!("no libtorch at {}: run `make deps` first", root.display())));
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix("__version__ = '"))
        .and_then(|rest| rest.split(['\'', '+']).next())
        .unwrap_or("unknown");
    if found != LIBTORCH_VERSION {
        fail(&format!("libtorch at {} is {found}, but {LIBTORCH_VERSION} is needed: run `make deps`", root.display()));
    }
}

fn compile_shim(root: &Path) {
    let include = root.join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .warnings(false)
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        // The wheel is built with the new string ABI.
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .opt_level(2)
        .debug(false)
        .file("aten/aten.cpp")
        .compile("sortinghat_aten");
}

fn fail(reason: &str) -> ! {
    eprintln!("sortinghat-worker: {reason}");
    process::exit(1);
}
