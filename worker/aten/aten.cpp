// The few ATen functions that tch 0.24 does not expose. Includes ATen's headers only.
//
// A `torch::Tensor*` arrives from tch's `Tensor::as_ptr`. Every function reports a failure as a malloc'ed
// message (freed by the caller with `free`) and success as null: an exception must not cross into Rust.

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <malloc.h>

#include <atomic>
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

// libtorch's allocator for the host, with a bound on what all tensors hold at a time.
class BoundedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    size_t held = held_.load(), allowed = limit_.load();
    TORCH_CHECK_WITH(
        OutOfMemoryError, held + bytes <= allowed, "CPU out of memory: tried to allocate ", bytes, " bytes beside ", held,
        " of ", allowed, " that tensors may hold");
    void* data = c10::alloc_cpu(bytes);
    held = held_ += malloc_usable_size(data);
    for (size_t peak = peak_.load(); peak < held && !peak_.compare_exchange_weak(peak, held);) {
    }
    return {data, data, &release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

  static inline std::atomic<size_t> held_{0}, peak_{0}, limit_{0};

 private:
  static void release(void* data) {
    held_ -= malloc_usable_size(data);
    c10::free_cpu(data);
  }
};

}  // namespace

extern "C" {

// Beyond the bound libtorch throws, and training then goes on in smaller pieces. Without a bound the kernel kills the process.
// Tensors made before the first call are not counted.
char* sortinghat_limit_host_memory(size_t bytes) {
  return guarded([&] {
    static BoundedAllocator allocator;
    BoundedAllocator::limit_ = bytes;
    c10::SetAllocator(c10::kCPU, &allocator, /*priority=*/1);
  });
}

// What tensors on the host hold now and held at most, in bytes; 0 without a bound.
void sortinghat_host_memory(size_t* current, size_t* peak) {
  *current = BoundedAllocator::held_;
  *peak = BoundedAllocator::peak_;
}

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

// One pass over parameter, gradient and both moments instead of seven. beta1 is the momentum of the step: ATen debiases
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

// Otherwise cuDNN and oneDNN may pick a convolution whose order of summation differs from run to run, and cuDNN may drop 13 of the 23
// bits of f32 factors (TF32). A photo would then get other probabilities on a GPU than on a CPU. Where speed is worth that, bf16 is
// faster still.
char* sortinghat_compute_repeatably() {
  return guarded([] {
    at::globalContext().setDeterministicCuDNN(true);
    at::globalContext().setBenchmarkCuDNN(false);
    at::globalContext().setAllowTF32CuDNN(false);
    at::globalContext().setDeterministicMkldnn(true);
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

// Is called after an out-of-memory error, so that the smaller micro-batch starts from a pool without fragments.
char* sortinghat_cuda_empty_cache() {
  return guarded([] { at::getDeviceAllocator(at::kCUDA)->emptyCache(); });
}

}  // extern "C"
