#include "kernel.hpp"

namespace hbn {

std::vector<Tensor> make_tensors(const Engine& engine, const hbn_tensor* tensors, int32_t count, std::initializer_list<Slot> slots,
                                 int32_t repeated) {
    const int32_t fixed = static_cast<int32_t>(slots.size()), single = fixed - repeated;
    require(tensors != nullptr, "tensors is null");
    if (repeated == 0 ? count != fixed : count < fixed || (count - single) % repeated != 0) {
        invalid("wrong number of tensors: " + std::to_string(count) + ", expected " + std::to_string(fixed) +
                (repeated > 0 ? " or more" : ""));
    }
    std::vector<Tensor> checked_tensors;
    checked_tensors.reserve(static_cast<size_t>(count));
    for (int32_t i = 0; i < count; i++) {
        const Slot& slot = slots.begin()[i < fixed ? i : single + (i - single) % repeated];
        checked_tensors.push_back(make_tensor(engine, tensors[i], slot.name));
        if (!slot.optional && !checked_tensors.back().present()) {
            invalid(std::string(slot.name) + " must be given");
        }
    }
    return checked_tensors;
}

void require_same_shape(const Tensor& a, const Tensor& b, const char* what) {
    if (a.dims() != b.dims()) {
        invalid(std::string(what) + " must have one shape, found " + a.text() + " and " + b.text());
    }
}

void require_same_layout(const Tensor& a, const Tensor& b, const char* what) {
    if (a.desc.layout != b.desc.layout) {
        unsupported(std::string(what) + " must have one layout, found " + a.text() + " and " + b.text() + "; add a copy between them");
    }
}

void require_float(const Tensor& t, const char* name) {
    if (t.present() && t.desc.data_type != HBN_FLOAT32) {
        unsupported(std::string(name) + " must be float32");
    }
}

void require_real(const Tensor& t, const char* name) {
    if (t.present() && t.desc.data_type != HBN_FLOAT32 && t.desc.data_type != HBN_BFLOAT16) {
        unsupported(std::string(name) + " must be float32 or bfloat16");
    }
}

void require_same_type(const Tensor& a, const Tensor& b, const char* what) {
    require_real(a, what);
    if (a.desc.data_type != b.desc.data_type) {
        unsupported(std::string(what) + " must have one element type, found " + a.text() + " and " + b.text());
    }
}

} // namespace hbn

using namespace hbn;

hbn_status hbn_kernel_execute(hbn_kernel* kernel, void* const* addresses, int32_t count, void* scratch, int64_t step,
                              float learning_rate) noexcept {
    return guard([&] {
        hbn_kernel& p = checked_handle(kernel, "kernel");
        require(addresses != nullptr, "addresses is null");
        if (count != static_cast<int32_t>(p.tensors.size())) {
            invalid("wrong number of addresses: " + std::to_string(count) + ", the kernel has " + std::to_string(p.tensors.size()) +
                    " tensors");
        }
        for (size_t i = 0; i < p.tensors.size(); i++) {
            if (addresses[i] == nullptr && p.tensors[i].present()) {
                invalid("tensor number " + std::to_string(i) + " (" + p.tensors[i].text() + ") has no memory yet");
            }
        }
        require(p.scratch_bytes == 0 || scratch != nullptr, "the kernel needs scratch memory");
        p.engine->use_threads();
        p.execute(addresses, static_cast<char*>(scratch), step, learning_rate);
    });
}

hbn_status hbn_kernel_scratch_bytes(const hbn_kernel* kernel, int64_t* bytes) noexcept {
    return guard([&] { checked_handle(bytes, "bytes") = checked_handle(kernel, "kernel").scratch_bytes; });
}

hbn_status hbn_kernel_implementation(const hbn_kernel* kernel, char* text, int32_t capacity) noexcept {
    return guard([&] { copy_text(checked_handle(kernel, "kernel").implementation, text, capacity); });
}

hbn_status hbn_kernel_conversions(const hbn_kernel* kernel, char* text, int32_t capacity) noexcept {
    return guard([&] { copy_text(checked_handle(kernel, "kernel").conversions, text, capacity); });
}

hbn_status hbn_kernel_format(const hbn_kernel* kernel, int32_t index, hbn_format** format) noexcept {
    return guard([&] {
        checked_handle(format, "format") = nullptr;
        const hbn_kernel& p = checked_handle(kernel, "kernel");
        require(index >= 0 && index < static_cast<int32_t>(p.tensors.size()), "index is not a tensor of the kernel");
        if (p.decided[static_cast<size_t>(index)]) {
            *format = new hbn_format(*p.decided[static_cast<size_t>(index)], p.tensors[static_cast<size_t>(index)].widened);
        }
    });
}

void hbn_kernel_destroy(hbn_kernel* kernel) noexcept {
    delete kernel;
}
