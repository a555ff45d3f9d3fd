#ifndef HBN_TENSOR_HPP
#define HBN_TENSOR_HPP

#include "engine.hpp"

#include <optional>

namespace hbn {

using dnnl::memory;

// A tensor of a kernel: the caller's description, checked, and what follows from it.
struct Tensor {
    hbn_tensor desc{};
    std::optional<memory::desc> format; // of an opaque tensor, once decided
    int32_t block = 1;                  // channels per block; 1 when plain

    bool present() const { return desc.layout != HBN_ABSENT; }
    bool is_slice() const { return desc.channel_offset != 0 || desc.root_channels != desc.c; }
    bool undecided() const { return desc.layout == HBN_OPAQUE && !format; }
    Extent extent() const { return {desc.n, desc.c, static_cast<int64_t>(desc.h) * desc.w}; }
    memory::dims dims() const { return {desc.n, desc.c, desc.h, desc.w}; }
    int64_t count() const { return static_cast<int64_t>(desc.n) * desc.c * desc.h * desc.w; }
    // Channels that a dense tensor of this layout has room for.
    int64_t padded_channels() const { return (desc.c + block - 1) / block * static_cast<int64_t>(block); }
    // Elements of a tensor that is not a slice, and its bytes.
    int64_t physical_count() const;
    int64_t physical_bytes() const { return physical_count() * element_bytes(); }
    int64_t element_bytes() const { return desc.data_type == HBN_UINT8 ? 1 : desc.data_type == HBN_BFLOAT16 ? 2 : 4; }
    memory::data_type type() const;
    std::string text() const;

    // The dense memory desc: of the layout for activations, of the format for opaque tensors that have one.
    memory::desc md() const;
    View view(void* address) const;
    Values values(void* address, int64_t padded) const { return {static_cast<float*>(address), padded}; }
};

// Checks one description; `name` is for messages.
Tensor make_tensor(const Engine& engine, const hbn_tensor& desc, const char* name);

// "OIhw16i16o"-like name (activation: "nChw16c") of a layout, for messages and conversion reports.
std::string layout_name(const memory::desc& md, bool activation = false);

// Dense row-major desc of the same dims.
memory::desc row_major(const memory::dims& dims, memory::data_type type = memory::data_type::f32);

} // namespace hbn

struct hbn_format : hbn::Counted {
    dnnl::memory::desc md;
    explicit hbn_format(const dnnl::memory::desc& md) : md(md) {}
};

#endif
