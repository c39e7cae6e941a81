// The few ATen functions that tch 0.24 does not expose. ATen headers only; no state of its own.
//
// A `torch::Tensor*` arrives from tch's `Tensor::as_ptr`. Every function reports a failure as a malloc'ed
// message (freed by the caller with `free`) and success as null: an exception must not cross into Rust.

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <cstring>
#include <exception>
#include <vector>

namespace {

template <typename Body>
char* guarded(Body body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}

std::vector<at::Tensor> collect(at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> collected;
  collected.reserve(count);
  for (size_t i = 0; i < count; ++i) collected.push_back(*tensors[i]);
  return collected;
}

at::DeviceType device_type(bool cuda) { return cuda ? at::kCUDA : at::kCPU; }

}  // namespace

extern "C" {

// tch cannot pass a memory format. NHWC triples CPU convolution throughput.
char* sortinghat_channels_last(const at::Tensor* input, at::Tensor** output) {
  return guarded([&] { *output = new at::Tensor(input->contiguous(at::MemoryFormat::ChannelsLast)); });
}

// Lets a test prove that a network keeps NHWC from end to end.
char* sortinghat_is_channels_last(const at::Tensor* input, bool* answer) {
  return guarded([&] { *answer = input->is_contiguous(at::MemoryFormat::ChannelsLast); });
}

// tch's autocast knows CUDA only and silently does nothing on a CPU. bf16 on both, thread-local.
char* sortinghat_autocast_enter(bool cuda, bool* previously_enabled) {
  return guarded([&] {
    auto type = device_type(cuda);
    *previously_enabled = at::autocast::is_autocast_enabled(type);
    at::autocast::set_autocast_dtype(type, at::kBFloat16);
    at::autocast::set_autocast_enabled(type, true);
    at::autocast::increment_nesting();
  });
}

// The outermost exit drops the cached bf16 copies of the weights: they are stale after the next update.
char* sortinghat_autocast_exit(bool cuda, bool previously_enabled) {
  return guarded([&] {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device_type(cuda), previously_enabled);
  });
}

// One pass over parameter, gradient and both moments instead of seven. beta1 is today's momentum: ATen debiases
// by beta1^step, adds eps after the debiased root and decays with lr * weight_decay, exactly as fastai does.
char* sortinghat_fused_adamw(
    at::Tensor* const* parameters, at::Tensor* const* gradients, at::Tensor* const* averages,
    at::Tensor* const* squares, at::Tensor* const* steps, size_t count, double learning_rate, double beta1,
    double beta2, double weight_decay, double eps) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_fused_adamw_(
        collect(parameters, count), collect(gradients, count), collect(averages, count), collect(squares, count), {},
        collect(steps, count), learning_rate, beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false);
  });
}

// cuDNN may otherwise pick a convolution whose sum order differs from run to run.
char* sortinghat_deterministic_cudnn() {
  return guarded([] {
    at::globalContext().setDeterministicCuDNN(true);
    at::globalContext().setBenchmarkCuDNN(false);
  });
}

// Bytes in use now and at the peak, as the caching allocator counts them.
char* sortinghat_cuda_memory(int64_t device, int64_t* current, int64_t* peak) {
  return guarded([&] {
    auto stats = at::getDeviceAllocator(at::kCUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(device));
    *current = stats.allocated_bytes[0].current;
    *peak = stats.allocated_bytes[0].peak;
  });
}

// After an out-of-memory error, so that the smaller micro-batch starts from an unfragmented pool.
char* sortinghat_cuda_empty_cache() {
  return guarded([] { at::getDeviceAllocator(at::kCUDA)->emptyCache(); });
}

}  // extern "C"
