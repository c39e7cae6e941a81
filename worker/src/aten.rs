//! Calls into libtorch that tch 0.24 lacks: channels-last tensors, bf16 autocast on a CPU, the fused Adam step, bounds and figures of
//! memory.
//!
//! The C++ side is `aten/aten.cpp`. It has one function for each one declared here, and says why each is needed.
#![allow(unsafe_code, reason = "calls the ATen shim; every block states why its pointers are valid")]

use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::ptr;

use tch::{Device, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn sortinghat_channels_last(input: *const C_tensor, output: *mut *mut C_tensor) -> *mut c_char;
    fn sortinghat_is_channels_last(input: *const C_tensor, answer: *mut bool) -> *mut c_char;
    fn sortinghat_autocast_enter(cuda: bool, previously_enabled: *mut bool) -> *mut c_char;
    fn sortinghat_autocast_exit(cuda: bool, previously_enabled: bool) -> *mut c_char;
    fn sortinghat_fused_adamw(
        parameters: *const *const C_tensor,
        gradients: *const *const C_tensor,
        averages: *const *const C_tensor,
        squares: *const *const C_tensor,
        steps: *const *const C_tensor,
        count: usize,
        learning_rate: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> *mut c_char;
    fn sortinghat_limit_host_memory(bytes: usize) -> *mut c_char;
    fn sortinghat_host_memory(current: *mut usize, peak: *mut usize);
    fn sortinghat_compute_repeatably() -> *mut c_char;
    fn sortinghat_cuda_memory(device: i64, current: *mut i64, peak: *mut i64) -> *mut c_char;
    fn sortinghat_cuda_empty_cache() -> *mut c_char;
}

/// libtorch refused an operation; the message is its own.
#[derive(Debug, thiserror::Error)]
#[error("libtorch failed to {operation}: {message}")]
pub struct AtenError {
    /// What was asked of libtorch.
    pub operation: &'static str,
    /// libtorch's explanation, without its stack trace.
    pub message: String,
}

fn check(operation: &'static str, message: *mut c_char) -> Result<(), AtenError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim hands out a nul-terminated string from `strdup`, and its ownership with it.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        libc::free(message.cast());
        text
    };
    // The rest of a long message lists libtorch's own internals.
    let message = text.lines().next().unwrap_or_default().to_owned();
    Err(AtenError { operation, message })
}

/// A copy of `[N, C, H, W]` laid out as NHWC, or the tensor itself when it already is.
///
/// # Errors
/// When the tensor does not have four dimensions, or memory runs out.
pub fn channels_last(input: &Tensor) -> Result<Tensor, AtenError> {
    let mut output = ptr::null_mut();
    // SAFETY: `input` is alive for the call; on success `output` is a fresh tensor that nobody else owns.
    unsafe {
        check("convert to channels-last", sortinghat_channels_last(input.as_ptr(), &raw mut output))?;
        Ok(Tensor::from_ptr(output))
    }
}

/// Whether `[N, C, H, W]` lies in memory as NHWC.
///
/// # Errors
/// When the tensor is undefined.
pub fn is_channels_last(input: &Tensor) -> Result<bool, AtenError> {
    let mut answer = false;
    // SAFETY: both pointers are valid for the call.
    unsafe { check("inspect a memory format", sortinghat_is_channels_last(input.as_ptr(), &raw mut answer))? };
    Ok(answer)
}

/// While alive, convolutions and matrix products on this thread run in bf16; weights stay f32.
///
/// Dropping it on the same thread restores the previous state and forgets the bf16 copies of the weights.
#[derive(Debug)]
pub struct Autocast {
    cuda: bool,
    previously_enabled: bool,
    /// Autocast is thread-local: the guard must not leave its thread.
    not_send: PhantomData<*const ()>,
}

impl Autocast {
    /// Switches bf16 autocast on for `device`.
    ///
    /// # Errors
    /// When libtorch has no autocast for the device.
    pub fn bf16(device: Device) -> Result<Self, AtenError> {
        let cuda = matches!(device, Device::Cuda(_));
        let mut previously_enabled = false;
        // SAFETY: the out pointer is valid for the call.
        unsafe { check("enter autocast", sortinghat_autocast_enter(cuda, &raw mut previously_enabled))? };
        Ok(Self { cuda, previously_enabled, not_send: PhantomData })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: takes no pointers.
        let left = unsafe { check("leave autocast", sortinghat_autocast_exit(self.cuda, self.previously_enabled)) };
        if let Err(error) = left {
            tracing::error!(%error, "autocast stays on for this thread");
        }
    }
}

/// The tensors of one Adam step: five lists of equal length, in which the same position belongs to the same parameter.
#[derive(Debug, Default)]
pub struct AdamTensors {
    /// Updated in place.
    pub parameters: Vec<Tensor>,
    /// Same shapes and strides as the parameters.
    pub gradients: Vec<Tensor>,
    /// Moving averages of the gradients, updated in place.
    pub averages: Vec<Tensor>,
    /// Moving averages of the squared gradients, updated in place.
    pub squares: Vec<Tensor>,
    /// f32 scalars: the number of this step, from 1.
    pub steps: Vec<Tensor>,
}

/// The numbers of one Adam step.
#[derive(Debug, Clone, Copy)]
pub struct AdamStep {
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// The momentum of this step; the debiasing uses it too.
    pub beta1: f64,
    /// Decay of the squared average.
    pub beta2: f64,
    /// Decoupled decay, multiplied by the learning rate.
    pub weight_decay: f64,
    /// Added to the debiased root.
    pub eps: f64,
}

/// One fused AdamW step over all tensors; the lists may be empty.
///
/// # Errors
/// When shapes, types or devices differ within one position.
pub fn fused_adamw(tensors: &AdamTensors, step: AdamStep) -> Result<(), AtenError> {
    let pointers = |list: &[Tensor]| list.iter().map(Tensor::as_ptr).collect::<Vec<_>>();
    let (parameters, gradients) = (pointers(&tensors.parameters), pointers(&tensors.gradients));
    let (averages, squares, steps) =
        (pointers(&tensors.averages), pointers(&tensors.squares), pointers(&tensors.steps));
    let count = parameters.len();
    if count == 0 {
        // ATen chooses its kernel by the first tensor.
        return Ok(());
    }
    assert!(
        [gradients.len(), averages.len(), squares.len(), steps.len()].iter().all(|&length| length == count),
        "every parameter of an Adam step has a gradient, two averages and a step"
    );
    // SAFETY: five arrays of `count` pointers to tensors that `tensors` keeps alive; ATen updates them in place.
    let message = unsafe {
        sortinghat_fused_adamw(
            parameters.as_ptr(),
            gradients.as_ptr(),
            averages.as_ptr(),
            squares.as_ptr(),
            steps.as_ptr(),
            count,
            step.learning_rate,
            step.beta1,
            step.beta2,
            step.weight_decay,
            step.eps,
        )
    };
    check("apply an Adam step", message)
}

/// Makes cuDNN and oneDNN choose only convolutions that repeat bit by bit, and cuDNN compute f32 in f32, for the whole process.
///
/// # Errors
/// When libtorch refuses the setting.
pub fn compute_repeatably() -> Result<(), AtenError> {
    // SAFETY: takes no pointers.
    unsafe { check("set how convolutions are computed", sortinghat_compute_repeatably()) }
}

/// Bounds what the tensors of this process may hold in the host's memory at a time, in bytes. Beyond the bound libtorch reports that
/// memory ran out, as it does on a GPU. Without a bound the kernel would kill the process.
///
/// # Errors
/// When libtorch refuses the allocator.
pub fn limit_host_memory(bytes: usize) -> Result<(), AtenError> {
    // SAFETY: takes no pointers; the allocator lives as long as the process.
    unsafe { check("bound the memory of tensors", sortinghat_limit_host_memory(bytes)) }
}

/// The host's memory held by tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMemory {
    /// Bytes in use now.
    pub current: usize,
    /// Most bytes in use at once.
    pub peak: usize,
}

/// The host's memory held by tensors that were made since it was bounded.
#[must_use]
pub fn host_memory() -> HostMemory {
    let mut memory = HostMemory { current: 0, peak: 0 };
    // SAFETY: both out pointers are valid for the call.
    unsafe { sortinghat_host_memory(&raw mut memory.current, &raw mut memory.peak) };
    memory
}

/// GPU memory held by tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaMemory {
    /// Bytes in use now.
    pub current: i64,
    /// Most bytes in use at once since the process started.
    pub peak: i64,
}

/// Memory held by tensors on GPU `index`.
///
/// # Errors
/// When CUDA is not loaded or not initialised.
pub fn cuda_memory(index: usize) -> Result<CudaMemory, AtenError> {
    let mut memory = CudaMemory { current: 0, peak: 0 };
    let index = i64::try_from(index).unwrap_or(i64::MAX);
    // SAFETY: both out pointers are valid for the call.
    unsafe {
        let message = sortinghat_cuda_memory(index, &raw mut memory.current, &raw mut memory.peak);
        check("read GPU memory figures", message)?;
    }
    Ok(memory)
}

/// Gives cached but unused GPU memory back.
///
/// # Errors
/// When CUDA is not loaded.
pub fn cuda_empty_cache() -> Result<(), AtenError> {
    // SAFETY: takes no pointers.
    unsafe { check("release cached GPU memory", sortinghat_cuda_empty_cache()) }
}
