#include "primitive.hpp"

#include <array>
#include <optional>

namespace hbn {

namespace {

using dnnl::algorithm;
using dnnl::prop_kind;

// What oneDNN calls a function, what its gradient is computed from (DNNL_ARG_SRC or DNNL_ARG_DST), and whether f(0) = 0; or which of our
// own it is.
struct Function {
    algorithm forward, backward;
    int gradient_reads;
    bool keeps_zero;
    std::optional<Selection> own_forward{}, own_backward{};
};

Function function_of(int32_t f) {
    switch (f) {
    case HBN_RELU:
        return {algorithm::undef, algorithm::undef, DNNL_ARG_DST, true, Selection::Relu, Selection::ReluGradient};
    case HBN_SIGMOID:
        return {algorithm::eltwise_logistic, algorithm::eltwise_logistic_use_dst_for_bwd, DNNL_ARG_DST, false};
    case HBN_TANH:
        return {algorithm::eltwise_tanh, algorithm::eltwise_tanh_use_dst_for_bwd, DNNL_ARG_DST, true};
    case HBN_GELU:
        return {algorithm::eltwise_gelu_erf, algorithm::eltwise_gelu_erf, DNNL_ARG_SRC, true};
    case HBN_SILU:
        return {algorithm::eltwise_swish, algorithm::eltwise_swish, DNNL_ARG_SRC, true};
    case HBN_HARD_SWISH:
        return {algorithm::undef, algorithm::undef, DNNL_ARG_SRC, true, Selection::HardSwish, Selection::HardSwishGradient};
    default:
        throw Error(HBN_INVALID_ARGUMENT, "activation function " + std::to_string(f) + " is not an HBN_ value");
    }
}

// oneDNN's eltwise over physical memory seen as one axis: padded channels are values like any other, so blocked tensors with padding take
// the fast code too. f(0) != 0 (sigmoid) is put right afterwards. Dense tensors run in one call, slices image by image, and so does
// bfloat16 that oneDNN has not: an image is widened in scratch.
struct ActivationKernel : hbn_kernel {
    ActivationKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t) : hbn_kernel(std::move(e), std::move(t)) {
        for (const Tensor& tensor : tensors) {
            require_same_type(tensor, at(0), "tensors of an activation");
            require_same_shape(tensor, at(0), "tensors of an activation");
            require_same_layout(tensor, at(0), "tensors of an activation");
            const View v = tensor.view(nullptr);
            if (tensor.desc.layout == HBN_OPAQUE || v.lane != 0 || (v.block > 1 && tensor.desc.c % v.block != 0 && !v.owns_padding)) {
                unsupported("an activation cannot work on " + tensor.text() + "; add a copy");
            }
            dense = dense && !tensor.is_slice() && !tensor.widened;
        }
        const int64_t image = at(0).physical_count() / at(0).desc.n;
        images = dense ? 1 : at(0).desc.n;
        run = row_major({dense ? image * at(0).desc.n : image}, at(0).type());
    }

protected:
    bool dense = true;
    int64_t images;
    memory::desc run;
    dnnl::primitive primitive;
    int64_t scratchpad_offset = 0;
    std::vector<int64_t> wide_offsets; // of an image of each tensor
    memory scratchpad;
    bool keeps_zero = true;
    std::optional<Selection> own;

    template <typename Pd> void finish(const Pd& pd) {
        implementation = pd.impl_info_str() + std::string(at(0).widened ? " on widened bf16" : "");
        for (size_t i = 0; at(0).widened && i < tensors.size(); i++) {
            wide_offsets.push_back(reserve(static_cast<int64_t>(run.get_size())));
            conversions += (i == 0 ? "" : ", ") + std::string("tensor ") + std::to_string(i) + " bf16 -> fp32";
        }
        const memory::desc md = pd.scratchpad_desc();
        scratchpad_offset = reserve(static_cast<int64_t>(md.get_size()));
        scratchpad = memory(md, engine->dnnl, nullptr);
        primitive = dnnl::primitive(pd.get());
    }

    // Runs the primitive on one image, or on all; the argument of each tensor, of which the last is written.
    template <size_t Count> void execute_run(const std::array<int, Count>& names, void* const* addresses, int64_t image, char* scratch) {
        std::unordered_map<int, memory> args;
        std::array<View, Count> outside, inside;
        for (size_t i = 0; i < Count; i++) {
            const View v = view(i, addresses);
            void* at_image = static_cast<char*>(v.data) + image * v.image_stride * at(i).element_bytes();
            outside[i] = at(i).run_view(at_image);
            if (at(i).widened) {
                inside[i] = at(i).dense().run_view(scratch + wide_offsets[i]);
                at_image = inside[i].data;
            }
            args.emplace(names[i], memory(run, engine->dnnl, at_image));
        }
        constexpr size_t written = Count - 1;
        const Extent elements{1, static_cast<int64_t>(run.get_size()) / 4, 1};
        for (size_t i = 0; at(0).widened && i < written; i++) {
            engine->arithmetic->copy(elements, outside[i], inside[i]);
        }
        scratchpad.set_data_handle(scratch + scratchpad_offset);
        args.emplace(DNNL_ARG_SCRATCHPAD, scratchpad);
        primitive.execute(engine->stream, args);
        if (at(0).widened) {
            engine->stream.wait();
            engine->arithmetic->copy(elements, inside[written], outside[written]);
        }
    }

    void close(size_t i, void* const* addresses) {
        engine->stream.wait();
        if (!keeps_zero) {
            engine->arithmetic->zero_padding(at(i).extent(), view(i, addresses));
        }
    }
};

struct ActivationForward final : ActivationKernel {
    ActivationForward(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_activation_desc& d)
        : ActivationKernel(std::move(e), std::move(t)) {
        const Function f = function_of(d.function);
        keeps_zero = f.keeps_zero;
        own = f.own_forward;
        if (own) {
            return;
        }
        finish(compat::eltwise_forward(engine->dnnl, scratch_attr(), prop_kind::forward_training, f.forward, run));
    }
    void execute(void* const* a, char* scratch, int64_t, float) override {
        if (own) {
            engine->arithmetic->select({*own, at(0).extent(), view(0, a), {}, view(1, a)});
            return;
        }
        for (int64_t n = 0; n < images; n++) {
            execute_run<2>({DNNL_ARG_SRC, DNNL_ARG_DST}, a, n, scratch);
        }
        close(1, a);
    }
};

struct ActivationBackward final : ActivationKernel {
    ActivationBackward(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_activation_desc& d)
        : ActivationKernel(std::move(e), std::move(t)) {
        const Function f = function_of(d.function);
        kept = f.gradient_reads;
        own = f.own_backward;
        if (own) {
            return;
        }
        const auto hint = compat::eltwise_forward(engine->dnnl, scratch_attr(), prop_kind::forward_training, f.backward, run);
        finish(compat::eltwise_backward(engine->dnnl, scratch_attr(), f.backward, run, hint));
    }
    void execute(void* const* a, char* scratch, int64_t, float) override {
        if (own) {
            engine->arithmetic->select({*own, at(0).extent(), view(0, a), view(1, a), view(2, a)});
            return;
        }
        // Padding: diff_dst is zero there, so diff_src is.
        for (int64_t n = 0; n < images; n++) {
            execute_run<3>({kept, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_SRC}, a, n, scratch);
        }
        close(2, a);
    }

private:
    int kept;
};

} // namespace

} // namespace hbn

using namespace hbn;

hbn_status hbn_activation_forward_create(hbn_engine* engine, const hbn_activation_desc* desc, const hbn_tensor* tensors, int32_t count,
                                         hbn_kernel** kernel) noexcept {
    return create_kernel<ActivationForward>(engine, tensors, count, kernel, {{"src"}, {"dst"}}, 0,
                                            Descriptor<hbn_activation_desc>{desc, "activation desc"});
}

hbn_status hbn_activation_backward_create(hbn_engine* engine, const hbn_activation_desc* desc, const hbn_tensor* tensors, int32_t count,
                                          hbn_kernel** kernel) noexcept {
    return create_kernel<ActivationBackward>(engine, tensors, count, kernel, {{"src or dst"}, {"diffDst"}, {"diffSrc"}}, 0,
                                             Descriptor<hbn_activation_desc>{desc, "activation desc"});
}
