#ifndef HBN_KERNEL_HPP
#define HBN_KERNEL_HPP

#include "tensor.hpp"

#include <initializer_list>
#include <vector>

// Anything executable. Sub-classes do their checks and choices in the constructor and only work in execute.
struct hbn_kernel : hbn::Counted {
    std::shared_ptr<hbn::Engine> engine;
    std::vector<hbn::Tensor> tensors;
    std::vector<std::optional<dnnl::memory::desc>> decided; // formats this kernel chose for undecided tensors
    int64_t scratch_bytes = 0;
    std::string implementation = "native";
    std::string conversions;

    hbn_kernel(std::shared_ptr<hbn::Engine> engine, std::vector<hbn::Tensor> tensors)
        : engine(std::move(engine)), tensors(std::move(tensors)), decided(this->tensors.size()) {}
    virtual ~hbn_kernel() = default;

    // addresses: one per tensor; scratch: scratch_bytes.
    virtual void execute(void* const* addresses, char* scratch, int64_t step, float learning_rate) = 0;

protected:
    const hbn::Tensor& at(size_t i) const { return tensors[i]; }

    // Takes `bytes` of scratch and returns where they start.
    int64_t reserve(int64_t bytes) {
        const int64_t offset = scratch_bytes;
        scratch_bytes += (bytes + 63) / 64 * 64;
        return offset;
    }

    // Decides an undecided tensor.
    void decide(size_t i, const dnnl::memory::desc& md) {
        if (tensors[i].undecided()) {
            decided[i] = md;
            tensors[i].format = md;
        }
    }

    // The same, dense NCHW: for kernels that do not care.
    void decide_plain(size_t i) { decide(i, hbn::row_major(tensors[i].dims(), tensors[i].type())); }

    hbn::View view(size_t i, void* const* addresses) const {
        return tensors[i].present() ? tensors[i].view(addresses[i]) : hbn::View{nullptr, 0, tensors[i].block, 0, false, {}};
    }

    // Per-channel or per-activation values in their own memory.
    hbn::Values values(size_t i, void* const* addresses) const {
        return tensors[i].present() ? hbn::Values{static_cast<float*>(addresses[i]), tensors[i].physical_count()} : hbn::Values{nullptr, 0};
    }
};

namespace hbn {

struct Slot {
    const char* name;
    bool optional = false;
};

// Checks the tensors of a create function against its slots; further tensors take the last slot's name when `repeated` > 0 slots repeat.
std::vector<Tensor> make_tensors(const Engine& engine, const hbn_tensor* tensors, int32_t count, std::initializer_list<Slot> slots,
                                 int32_t repeated = 0);

// A descriptor argument of a create function, checked when the kernel is made.
template <typename T> struct Descriptor {
    const T* desc;
    const char* name;
};

template <typename T> const T& unwrap(const Descriptor<T>& d) {
    return checked(d.desc, d.name);
}
template <typename T> const T& unwrap(const T& other) {
    return other;
}

// What every create function does: *kernel is NULL unless all went well.
template <typename P, typename... Args>
hbn_status create_kernel(hbn_engine* engine, const hbn_tensor* tensors, int32_t count, hbn_kernel** kernel,
                         std::initializer_list<Slot> slots, int32_t repeated, const Args&... args) noexcept {
    return guard([&] {
        checked_handle(kernel, "kernel") = nullptr;
        const std::shared_ptr<Engine>& shared = checked_handle(engine, "engine").shared;
        shared->use_threads();
        *kernel = std::make_unique<P>(shared, make_tensors(*shared, tensors, count, slots, repeated), unwrap(args)...).release();
    });
}

// Throws unless two tensors have one shape.
void require_same_shape(const Tensor& a, const Tensor& b, const char* what);

// Throws unless both lie in memory in the same way (block and type of layout; slices allowed).
void require_same_layout(const Tensor& a, const Tensor& b, const char* what);

void require_float(const Tensor& t, const char* name);

// Throws unless a present tensor is float32 or bfloat16.
void require_real(const Tensor& t, const char* name);

// Throws unless both are float32, or both bfloat16.
void require_same_type(const Tensor& a, const Tensor& b, const char* what);

} // namespace hbn

#endif
