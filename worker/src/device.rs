//! Chooses which device computes, on how many threads, and with which settings of the allocator and of libtorch's libraries.
#![allow(unsafe_code, reason = "dlopen and mallopt; each block states why it is sound")]

use std::env;
use std::ffi::{CStr, CString, c_int, c_uint, c_void};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sortinghat_proto as proto;
use tch::{Cuda, Device, Kind, TchError, Tensor};

use crate::aten;

/// The device of NVIDIA's driver.
const DRIVER: &str = "/dev/nvidiactl";
/// Settings that libtorch's libraries read from the environment.
const LIBRARY_SETTINGS: [(&str, &str); 2] = [
    // MKL: sums in the same order in every run, whichever thread is first.
    ("MKL_CBWR", "AUTO"),
    // OpenMP: how many rounds a waiting thread spins before it sleeps. Threads wait for each other hundreds of times in a step. With the
    // default of 300,000 rounds they spin through the time slices of other processes on the same core. libgomp itself uses 1000 rounds
    // once it has more threads than cores.
    ("GOMP_SPINCOUNT", "1000"),
];

/// The environment variables that a process that computes should be started with, because the libraries read them when they are
/// loaded. A variable that is already set is left alone.
pub fn library_settings() -> impl Iterator<Item = (&'static str, &'static str)> {
    LIBRARY_SETTINGS.into_iter().filter(|(name, _)| env::var_os(name).is_none())
}

/// What the user asked for with `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceRequest {
    /// The first GPU if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number; it is an error if it cannot be used.
    Cuda(usize),
}

/// The kind of number a convolution computes with, once [`proto::Precision::Auto`] is decided. Weights are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// bfloat16 in convolutions, f32 elsewhere.
    Bf16,
}

impl From<Precision> for proto::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
        }
    }
}

/// The device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The text has none of the three forms.
    #[error("unknown device {0:?}; allowed are auto, cpu and cuda:N")]
    Unknown(String),
    /// A GPU was asked for by number and cannot be used.
    #[error("no cuda:{index}: {reason}")]
    NoCuda {
        /// Its number.
        index: usize,
        /// Why not.
        reason: String,
    },
}

impl FromStr for DeviceRequest {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| DeviceError::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for DeviceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// The device that was chosen, and how it computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compute {
    /// Where tensors live.
    pub device: Device,
    /// Whether the device has instructions for bf16. Without them bf16 would be slower than f32.
    pub has_bf16: bool,
    /// Threads libtorch uses for one operation.
    pub threads: usize,
    /// One sentence: which device, and why.
    pub reason: String,
}

impl Compute {
    /// "cpu" or "cuda:0".
    #[must_use]
    pub fn device_name(&self) -> String {
        match self.device {
            Device::Cuda(index) => format!("cuda:{index}"),
            Device::Cpu | Device::Mps | Device::Vulkan => "cpu".to_owned(),
        }
    }

    /// The precision to train in. Where the user leaves the choice open, bf16 is used on GPUs only: on a CPU it makes training
    /// slower.
    #[must_use]
    pub fn training_precision(&self, asked: proto::Precision) -> Precision {
        match asked {
            proto::Precision::Auto if self.has_bf16 && self.device.is_cuda() => Precision::Bf16,
            proto::Precision::Auto | proto::Precision::F32 => Precision::F32,
            proto::Precision::Bf16 => Precision::Bf16,
        }
    }
}

/// Chooses the device, loads CUDA if that is to be used, sets the number of libtorch's threads (default: one per core), and makes
/// libtorch compute the same bits in every run.
///
/// # Errors
/// [`DeviceError::NoCuda`] when a GPU was asked for by number and is not there.
pub fn choose(request: DeviceRequest, threads: Option<usize>) -> Result<Compute, DeviceError> {
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    if let Err(error) = aten::compute_repeatably() {
        tracing::warn!(%error, "two runs may differ in their last bits, and a GPU may round more than a CPU does");
    }
    match request {
        DeviceRequest::Cpu => Ok(cpu(threads, "asked for")),
        DeviceRequest::Auto => Ok(match cuda(0) {
            Ok(()) => gpu(0, threads, "a GPU was found"),
            Err(reason) => cpu(threads, &reason),
        }),
        DeviceRequest::Cuda(index) => {
            cuda(index).map_err(|reason| DeviceError::NoCuda { index, reason })?;
            Ok(gpu(index, threads, "asked for"))
        }
    }
}

fn cpu(threads: usize, why: &str) -> Compute {
    let has_bf16 = cpu_has_bf16();
    let with = if has_bf16 { "with" } else { "without" };
    let reason = format!("the CPU computes ({why}), {threads} threads, {with} bf16 instructions");
    Compute { device: Device::Cpu, has_bf16, threads, reason }
}

fn gpu(index: usize, threads: usize, why: &str) -> Compute {
    let reason = format!("cuda:{index} computes ({why})");
    Compute { device: Device::Cuda(index), has_bf16: true, threads, reason }
}

/// Whether this CPU multiplies bf16 natively.
fn cpu_has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Loads CUDA and looks for GPU `index`; the error is a reason for people.
fn cuda(index: usize) -> Result<(), String> {
    if !Path::new(DRIVER).exists() {
        return Err("this machine has no NVIDIA driver".to_owned());
    }
    load_libtorch_cuda()?;
    let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
    if index < count { Ok(()) } else { Err(format!("CUDA sees {count} GPUs")) }
}

/// Whether a GPU may be chosen.
pub(crate) fn may_be_cuda(request: DeviceRequest) -> bool {
    request != DeviceRequest::Cpu && Path::new(DRIVER).exists()
}

/// Has the GPU's driver make its devices, which CUDA would do otherwise by starting this program; an executor may start none.
pub(crate) fn make_devices(request: DeviceRequest) {
    if request != DeviceRequest::Cpu && Path::new("/proc/driver/nvidia").exists() {
        // Where the program is not installed, the system makes the devices by itself.
        let _ = Command::new("nvidia-modprobe").args(["-c", "0", "-u"]).status();
    }
}

/// Initialises a GPU to its end, which opens whatever CUDA needs on this machine. A CPU needs nothing.
pub(crate) fn initialise(device: Device) -> Result<(), TchError> {
    match device.is_cuda() {
        true => Tensor::f_zeros([1], (Kind::Float, device)).map(drop),
        false => Ok(()),
    }
}

/// The memory of a GPU, in bytes, as CUDA's driver tells it; `None` for the CPU, and if the driver does not say.
#[must_use]
pub fn memory_bytes(device: Device) -> Option<u64> {
    let Device::Cuda(index) = device else { return None };
    let index = c_int::try_from(index).ok()?;
    // SAFETY: the driver's library has been loaded by libtorch already; the handle is kept for ever.
    let driver = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
    if driver.is_null() {
        return None;
    }
    // SAFETY: the symbols have these types since CUDA 3.2 (CUdevice is an int); every pointer is to a local that outlives the call.
    unsafe {
        let init: extern "C" fn(c_uint) -> c_int = symbol(driver, c"cuInit")?;
        let get: extern "C" fn(*mut c_int, c_int) -> c_int = symbol(driver, c"cuDeviceGet")?;
        let total: extern "C" fn(*mut usize, c_int) -> c_int = symbol(driver, c"cuDeviceTotalMem_v2")?;
        let (mut handle, mut bytes) = (0, 0);
        (init(0) == 0 && get(&raw mut handle, index) == 0 && total(&raw mut bytes, handle) == 0).then_some(bytes as u64)
    }
}

/// A function of a loaded library.
///
/// # Safety
/// `F` must be the type of the function that has this name.
unsafe fn symbol<F: Copy>(library: *mut c_void, name: &CStr) -> Option<F> {
    // SAFETY: a handle that dlopen gave and a nul-terminated name.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    const { assert!(size_of::<F>() == size_of::<*mut c_void>(), "a function pointer") };
    // SAFETY: not null, of the same size, and of the type that the caller promises.
    (!address.is_null()).then(|| unsafe { std::mem::transmute_copy(&address) })
}

/// Loads libtorch_cuda. The linker drops this library because nothing names a symbol of it, and without it CUDA is not available.
fn load_libtorch_cuda() -> Result<(), String> {
    let path = libtorch_folder().join("libtorch_cuda.so");
    let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| "libtorch's path has a nul".to_owned())?;
    // SAFETY: a nul-terminated path; libtorch's initialisers run as they do under Python. The handle is kept for ever.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: after a failed dlopen dlerror returns a nul-terminated string, valid until the next dl call here.
    let reason = unsafe {
        let message = libc::dlerror();
        if message.is_null() { "unknown".to_owned() } else { CStr::from_ptr(message).to_string_lossy().into_owned() }
    };
    Err(format!("libtorch's CUDA part does not load: {reason}"))
}

/// The folders in which libtorch and the GPU's libraries lie that were installed with it.
pub(crate) fn libtorch_folders() -> [PathBuf; 2] {
    let folder = libtorch_folder();
    let of_gpu = folder.join("../../nvidia");
    [folder, of_gpu]
}

/// The folder that the running libtorch_cpu was loaded from, wherever the binary was moved.
fn libtorch_folder() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines()
        .filter_map(|line| line.split_once('/').map(|(_, rest)| PathBuf::from(format!("/{rest}"))))
        .find(|path| path.file_name().is_some_and(|name| name == "libtorch_cpu.so"))
        .and_then(|path| path.parent().map(Path::to_path_buf))
        .unwrap_or_else(|| PathBuf::from(env!("SORTINGHAT_LIBTORCH_LIB")))
}

/// Makes glibc keep freed memory instead of giving it back after every batch. Call it before the first thread.
///
/// A training step allocates and frees hundreds of megabytes. By default the kernel maps and unmaps each large block and zeroes its
/// pages anew, which takes half of the time of a step. With these settings every block comes from the one heap, which only grows.
/// `examples/throughput.rs` measures the effect. With another C library this function does nothing.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in [
        // Never map a block, however large.
        (libc::M_MMAP_MAX, 0),
        // Never trim.
        (libc::M_TRIM_THRESHOLD, -1),
        // The heaps of other arenas end at 64 MiB and are unmapped as soon as they are empty.
        (libc::M_ARENA_MAX, 1),
        (libc::M_TOP_PAD, 64 << 20),
    ] {
        // SAFETY: mallopt only stores the number under malloc's own lock.
        if unsafe { libc::mallopt(parameter, value) } == 0 {
            tracing::warn!(parameter, value, "the C library refused an allocator setting; training is slower");
        }
    }
}

/// Returns freed memory that the process has kept to the system, and to other users of the GPU. This takes up to a second.
pub fn give_memory_back(device: Device) {
    if device.is_cuda()
        && let Err(error) = aten::cuda_empty_cache()
    {
        tracing::warn!(%error, "freed memory of the GPU stays with this process");
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes malloc's own lock, and gives away pages that hold nothing.
    unsafe {
        libc::malloc_trim(0)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_as_it_is_written_and_anything_else_is_refused() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<DeviceRequest>().unwrap().to_string(), text);
        }
        for text in ["gpu", "cuda", "cuda:", "cuda:-1", ""] {
            assert!(text.parse::<DeviceRequest>().unwrap_err().to_string().contains("cuda:N"), "{text}");
        }
    }

    #[test]
    fn choosing_the_cpu_says_so_in_one_sentence() {
        let compute = choose(DeviceRequest::Cpu, Some(1)).unwrap();
        assert_eq!((compute.device, compute.threads), (Device::Cpu, 1));
        assert!(compute.reason.starts_with("the CPU computes (asked for), 1 threads"), "{}", compute.reason);
        assert_eq!(memory_bytes(compute.device), None, "it has no memory of its own");
    }

    #[test]
    fn training_uses_bf16_on_a_gpu_and_not_on_a_cpu_unless_asked_to() {
        let compute = |device| Compute { device, has_bf16: true, threads: 1, reason: String::new() };
        let (cpu, gpu) = (compute(Device::Cpu), compute(Device::Cuda(0)));
        let auto = proto::Precision::Auto;
        assert_eq!((cpu.training_precision(auto), gpu.training_precision(auto)), (Precision::F32, Precision::Bf16));
        assert_eq!(cpu.training_precision(proto::Precision::Bf16), Precision::Bf16);
    }

    #[test]
    fn the_loaded_libtorch_is_found_beside_its_cuda_part() {
        assert!(libtorch_folder().join("libtorch_cpu.so").exists());
    }
}
