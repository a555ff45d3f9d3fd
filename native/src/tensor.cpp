#include "tensor.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

namespace hbn {

Tensor make_tensor(const Engine& engine, const hbn_tensor& desc, const char* name) {
    checked(&desc, name);
    Tensor t;
    t.desc = desc;
    if (desc.layout == HBN_ABSENT) {
        return t;
    }
    t.widened = desc.data_type == HBN_BFLOAT16 && engine.widens_bf16;
    require(desc.layout >= HBN_PLAIN && desc.layout <= HBN_OPAQUE, "tensor layout is not an HBN_ layout");
    require(desc.data_type >= HBN_FLOAT32 && desc.data_type <= HBN_BFLOAT16, "tensor data_type is not an HBN_ type");
    if (desc.n < 1 || desc.c < 1 || desc.h < 1 || desc.w < 1 || desc.channel_offset < 0 ||
        desc.channel_offset + desc.c > desc.root_channels) {
        invalid(std::string(name) + ": extents must be at least 1 and a slice must lie inside its root, found " + t.text());
    }
    if (desc.layout == HBN_BLOCKED) {
        require(desc.data_type == HBN_FLOAT32 || desc.data_type == HBN_BFLOAT16, "only float32 and bfloat16 tensors can be blocked");
        t.block = engine.channel_block;
    }
    if (desc.layout == HBN_OPAQUE) {
        require(!t.is_slice(), "a slice of an opaque tensor has no meaning");
        if (desc.format != nullptr) {
            t.format = desc.format->md;
        }
    }
    return t;
}

int64_t Tensor::physical_count() const {
    if (desc.layout == HBN_OPAQUE && format) {
        return static_cast<int64_t>(format->get_size()) / (widened ? static_cast<int64_t>(sizeof(float)) : element_bytes());
    }
    return desc.n * padded_channels() * desc.h * desc.w;
}

View Tensor::run_view(void* address) const {
    return {address, 0, 1, 0, false, desc.data_type == HBN_BFLOAT16 ? Element::BFloat16 : Element::Float32};
}

Tensor Tensor::dense() const {
    Tensor t = *this;
    t.desc.root_channels = t.desc.c;
    t.desc.channel_offset = 0;
    t.desc.data_type = widened ? HBN_FLOAT32 : desc.data_type;
    t.widened = false;
    return t;
}

std::string Tensor::text() const {
    static const char* layouts[] = {"absent", "plain", "blocked", "opaque"};
    std::string s = std::to_string(desc.n) + "x" + std::to_string(desc.c) + "x" + std::to_string(desc.h) + "x" + std::to_string(desc.w) +
                    (desc.data_type == HBN_BFLOAT16 ? " bfloat16 " : " ") + layouts[std::clamp(desc.layout, 0, 3)];
    if (format) {
        s += " " + layout_name(*format);
    }
    if (present() && is_slice()) {
        s += " slice [" + std::to_string(desc.channel_offset) + ".." + std::to_string(desc.channel_offset + desc.c) + ") of " +
             std::to_string(desc.root_channels);
    }
    return s;
}

memory::data_type Tensor::type() const {
    switch (desc.data_type) {
    case HBN_BFLOAT16:
        return widened ? memory::data_type::f32 : memory::data_type::bf16;
    case HBN_INT32:
        return memory::data_type::s32;
    case HBN_UINT8:
        return memory::data_type::u8;
    default:
        return memory::data_type::f32;
    }
}

memory::desc Tensor::md() const {
    if (format) {
        return *format;
    }
    if (desc.layout == HBN_BLOCKED) {
        return memory::desc(dims(), type(), block == 16 ? memory::format_tag::nChw16c : memory::format_tag::nChw8c);
    }
    return memory::desc(dims(), type(), memory::format_tag::nchw);
}

View Tensor::view(void* address) const {
    const int64_t area = static_cast<int64_t>(desc.h) * desc.w;
    const int64_t root = (desc.root_channels + block - 1) / block * static_cast<int64_t>(block);
    return {address,
            root * area,
            block,
            desc.channel_offset % block,
            block > 1 && desc.channel_offset + desc.c == desc.root_channels,
            desc.data_type == HBN_BFLOAT16 ? Element::BFloat16 : Element::Float32};
}

std::string layout_name(const memory::desc& md, bool activation) {
    const compat::Blocking b = compat::blocking_of(md);
    if (!b.known) {
        return "library's own";
    }
    const int axes = static_cast<int>(b.sizes.size());
    std::vector<int> order(axes);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int x, int y) { return b.strides[x] > b.strides[y]; });
    const char* letters = axes == 5 ? "goihw" : axes == 4 ? (activation ? "nchw" : "oihw") : axes == 2 ? (activation ? "nc" : "oi") : "x";
    std::string s;
    for (int axis : order) {
        const bool blocked = std::find(b.inner_axes.begin(), b.inner_axes.end(), axis) != b.inner_axes.end();
        s += static_cast<char>(blocked ? std::toupper(letters[axis]) : letters[axis]);
    }
    for (size_t i = 0; i < b.inner_blocks.size(); i++) {
        s += std::to_string(b.inner_blocks[i]) + letters[b.inner_axes[i]];
    }
    return s;
}

memory::desc row_major(const memory::dims& dims, memory::data_type type) {
    memory::dims strides(dims.size());
    memory::dim stride = 1;
    for (size_t i = dims.size(); i-- > 0;) {
        strides[i] = stride;
        stride *= dims[i];
    }
    return memory::desc(dims, type, strides);
}

Reorder::Reorder(const Engine& engine, const Tensor& from_tensor, const memory::desc& from_md, const Tensor& to_tensor,
                 const memory::desc& to_md)
    : from(from_tensor), to(to_tensor) {
    if (from_md == to_md) {
        return;
    }
    src = memory(from_md, engine.dnnl, nullptr);
    dst = memory(to_md, engine.dnnl, nullptr);
    primitive = dnnl::reorder(src, dst);
    src_bytes = from.widened ? static_cast<int64_t>((from_md.get_size() + 63) / 64 * 64) : 0;
    dst_bytes = to.widened ? static_cast<int64_t>(to_md.get_size()) : 0;
}

void Reorder::execute(const Engine& engine, void* from_address, void* to_address, char* scratch) {
    if (!primitive) {
        engine.arithmetic->copy(to.run(), from.run_view(from_address), to.run_view(to_address));
        return;
    }
    const Tensor wide_from = from.dense(), wide_to = to.dense();
    if (from.widened) {
        engine.arithmetic->copy(from.run(), from.run_view(from_address), wide_from.run_view(scratch));
    }
    src.set_data_handle(from.widened ? scratch : from_address);
    dst.set_data_handle(to.widened ? scratch + src_bytes : to_address);
    dnnl::stream stream = engine.stream;
    primitive->execute(stream, src, dst);
    stream.wait();
    if (to.widened) {
        engine.arithmetic->copy(to.run(), wide_to.run_view(scratch + src_bytes), to.run_view(to_address));
    }
}

namespace {

// Transfers are between logical order and memory; `plain` describes the values as the tensor describes them, but plain and dense.
template <typename Sliced>
void transfer(const Engine& engine, const hbn_tensor* tensor, void* address, float* values, bool write, Sliced sliced) {
    const Tensor t = make_tensor(engine, checked(tensor, "tensor"), "tensor");
    require(t.present() && (t.desc.data_type == HBN_FLOAT32 || t.desc.data_type == HBN_BFLOAT16),
            "only float32 and bfloat16 tensors are transferred");
    require(!t.undecided(), "the tensor's layout is not decided: no kernel uses it yet");
    engine.use_threads();
    hbn_tensor plain = *tensor;
    plain.data_type = HBN_FLOAT32;
    plain.layout = HBN_PLAIN;
    plain.root_channels = plain.c;
    plain.channel_offset = 0;
    plain.format = nullptr;
    const Tensor ordered = make_tensor(engine, plain, "values");
    if (t.desc.layout != HBN_OPAQUE) {
        sliced(t, ordered);
        return;
    }
    const memory::desc md = row_major(compat::dims_of(*t.format));
    Reorder reorder = write ? Reorder(engine, ordered, md, t, *t.format) : Reorder(engine, t, *t.format, ordered, md);
    std::vector<char> scratch(static_cast<size_t>(reorder.scratch_bytes()) + 64);
    write ? reorder.execute(engine, values, address, scratch.data()) : reorder.execute(engine, address, values, scratch.data());
}

} // namespace

} // namespace hbn

using namespace hbn;

hbn_status hbn_format_query(const hbn_format* format, int64_t* bytes) noexcept {
    return guard([&] {
        const hbn_format& f = checked_handle(format, "format");
        checked_handle(bytes, "bytes") = static_cast<int64_t>(f.md.get_size()) / (f.widened ? 2 : 1);
    });
}

void hbn_format_destroy(hbn_format* format) noexcept {
    delete format;
}

hbn_status hbn_tensor_write(hbn_engine* engine, const hbn_tensor* tensor, void* memory, const float* values) noexcept {
    return guard([&] {
        const Engine& e = *checked_handle(engine, "engine").shared;
        require(memory != nullptr && values != nullptr, "memory and values must not be null");
        float* from = const_cast<float*>(values);
        transfer(e, tensor, memory, from, true,
                 [&](const Tensor& t, const Tensor& plain) { e.arithmetic->copy(t.extent(), plain.view(from), t.view(memory)); });
    });
}

hbn_status hbn_tensor_read(hbn_engine* engine, const hbn_tensor* tensor, const void* memory, float* values) noexcept {
    return guard([&] {
        const Engine& e = *checked_handle(engine, "engine").shared;
        require(memory != nullptr && values != nullptr, "memory and values must not be null");
        void* from = const_cast<void*>(memory);
        transfer(e, tensor, from, values, false,
                 [&](const Tensor& t, const Tensor& plain) { e.arithmetic->copy(t.extent(), t.view(from), plain.view(values)); });
    });
}
