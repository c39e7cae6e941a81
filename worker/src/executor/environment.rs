//! Which variables of the worker's environment an executor gets. Keys and tokens are none of them, whatever their names.

use std::ffi::{OsStr, OsString};

/// Variables by their whole names: where programs and libraries are, and in which language and how much they speak.
const NAMES: [&str; 9] = [
    "PATH",
    "LD_LIBRARY_PATH",
    "LANG",
    "LANGUAGE",
    "TZ",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "NO_COLOR",
    "LLVM_PROFILE_FILE",
];
/// Variables by what their names begin with: the settings of the libraries that compute.
const BEGINNINGS: [&str; 17] = [
    "LC_",
    "CUDA_",
    "CUDNN_",
    "CUBLAS_",
    "NVIDIA_",
    "NCCL_",
    "OMP_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "OPENBLAS_",
    "ONEDNN_",
    "DNNL_",
    "TORCH_",
    "PYTORCH_",
    "MALLOC_",
    "GLIBC_TUNABLES",
];

/// Of these variables, those that an executor gets.
pub(super) fn allowed(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = (OsString, OsString)> {
    variables.into_iter().filter(|(name, _)| is_allowed(name))
}

fn is_allowed(name: &OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| NAMES.contains(&name) || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_libraries_pass_and_nothing_else_does() {
        for name in ["PATH", "LC_ALL", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_CBWR", "RUST_LOG"] {
            assert!(is_allowed(OsStr::new(name)), "{name}");
        }
        for name in ["AWS_SECRET_ACCESS_KEY", "SORTINGHAT_TOKEN", "HF_TOKEN", "HOME", "SSH_AUTH_SOCK", "PATHS"] {
            assert!(!is_allowed(OsStr::new(name)), "{name}");
        }
    }
}
