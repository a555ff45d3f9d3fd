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
    bool widened = false;               // bfloat16 that oneDNN sees as float32, format included: what it reads and writes are copies

    bool present() const { return desc.layout != HBN_ABSENT; }
    bool is_slice() const { return desc.channel_offset != 0 || desc.root_channels != desc.c; }
    // Whether its elements lie as those of a tensor of its own would: so do whole blocks of one image.
    bool lies_whole() const {
        return !is_slice() || (desc.n == 1 && desc.channel_offset % block == 0 &&
                               (desc.c % block == 0 || desc.channel_offset + desc.c == desc.root_channels));
    }
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

    // All elements of a whole tensor in their order in memory, whatever that is.
    Extent run() const { return {1, physical_count(), 1}; }
    View run_view(void* address) const;
    // A whole tensor that lies alike, in the type that oneDNN sees.
    Tensor dense() const;

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

// A whole tensor copied to one of another layout, element type or both. Layouts are oneDNN's to change, in the types it sees.
class Reorder {
public:
    Reorder() = default;
    Reorder(const Engine& engine, const Tensor& from, const memory::desc& from_md, const Tensor& to, const memory::desc& to_md);
    int64_t scratch_bytes() const { return src_bytes + dst_bytes; }
    // False: the elements keep their order.
    bool moves() const { return primitive.has_value(); }
    void execute(const Engine& engine, void* from_address, void* to_address, char* scratch);

private:
    Tensor from, to;
    memory src, dst;
    std::optional<dnnl::reorder> primitive;
    int64_t src_bytes = 0, dst_bytes = 0; // of copies in scratch, in this order
};

} // namespace hbn

struct hbn_format : hbn::Counted {
    dnnl::memory::desc md;
    bool widened; // the tensors that lie so are bfloat16, and md says float32
    hbn_format(const dnnl::memory::desc& md, bool widened) : md(md), widened(widened) {}
};

#endif
