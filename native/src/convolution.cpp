#include "convolution.hpp"

#include <type_traits>

namespace hbn {

namespace {

using dnnl::algorithm;
using dnnl::convolution_backward_data;
using dnnl::convolution_backward_weights;
using dnnl::convolution_forward;
using dnnl::prop_kind;

using ForwardPd = convolution_forward::primitive_desc;

constexpr algorithm kDirect = algorithm::convolution_direct;

// A convolution in oneDNN's terms.
struct Problem {
    memory::dims strides, dilations, pad_before, pad_after, weights_dims;
    memory::desc src, dst;  // as the tensors lie
    memory::data_type type; // of activations and multiplied weights; the gradient of the weights is float32
    bool bias;
    bool onto_dst; // the result is added to what dst holds
    std::string text;

    Problem(const hbn_conv_desc& d, const Tensor& src_tensor, const Tensor& weights, const Tensor& dst_tensor, bool bias,
            bool onto_dst = false)
        : strides{d.stride_h, d.stride_w}, dilations{d.dilation_h - 1, d.dilation_w - 1},
          pad_before{d.pad_top, d.pad_left}, pad_after{d.pad_bottom, d.pad_right}, src(src_tensor.md()), dst(dst_tensor.md()),
          type(src_tensor.type()), bias(bias), onto_dst(onto_dst) {
        const hbn_tensor &s = src_tensor.desc, &w = weights.desc, &o = dst_tensor.desc;
        require(d.groups >= 1 && d.stride_h >= 1 && d.stride_w >= 1 && d.dilation_h >= 1 && d.dilation_w >= 1 && d.pad_top >= 0 &&
                    d.pad_left >= 0 && d.pad_bottom >= 0 && d.pad_right >= 0,
                "groups, strides and dilations must be at least 1 and paddings not negative");
        require_same_type(dst_tensor, src_tensor, "src and dst of a convolution");
        require(src_tensor.desc.layout != HBN_OPAQUE && dst_tensor.desc.layout != HBN_OPAQUE, "activations must be plain or blocked");
        text = "convolution src " + src_tensor.text() + ", weights " + weights.text() + ", dst " + dst_tensor.text() + ", stride " +
               std::to_string(d.stride_h) + "x" + std::to_string(d.stride_w) + ", dilation " + std::to_string(d.dilation_h) + "x" +
               std::to_string(d.dilation_w) + ", padding " + std::to_string(d.pad_top) + "," + std::to_string(d.pad_left) + "," +
               std::to_string(d.pad_bottom) + "," + std::to_string(d.pad_right) + ", groups " + std::to_string(d.groups);
        const auto outputs = [](int32_t extent, int32_t kernel, int32_t stride, int32_t dilation, int32_t before, int32_t after) {
            const int32_t room = extent + before + after - ((kernel - 1) * dilation + 1);
            return room < 0 ? 0 : room / stride + 1;
        };
        if (s.n != o.n || s.c % d.groups != 0 || o.c % d.groups != 0 || w.n != o.c || w.c != s.c / d.groups ||
            o.h != outputs(s.h, w.h, d.stride_h, d.dilation_h, d.pad_top, d.pad_bottom) ||
            o.w != outputs(s.w, w.w, d.stride_w, d.dilation_w, d.pad_left, d.pad_right)) {
            invalid("shapes do not fit together: " + text);
        }
        if (d.groups == 1) {
            weights_dims = {w.n, w.c, w.h, w.w};
        } else {
            weights_dims = {d.groups, w.n / d.groups, w.c, w.h, w.w};
        }
    }

    memory::desc any_weights() const { return memory::desc(weights_dims, type, memory::format_tag::any); }
    memory::desc any_diff_weights() const { return memory::desc(weights_dims, memory::data_type::f32, memory::format_tag::any); }
    memory::desc bias_md() const { return row_major({weights_dims.size() == 4 ? weights_dims[0] : weights_dims[0] * weights_dims[1]}); }
    memory::desc any_like(const memory::desc& md) const { return memory::desc(compat::dims_of(md), type, memory::format_tag::any); }

    // How the caller's weights lie: the format decided earlier, or plain.
    memory::desc given_weights(const Tensor& weights) const {
        if (weights.format) {
            return *weights.format;
        }
        if (weights.desc.layout == HBN_BLOCKED) {
            unsupported("convolution weights are plain or opaque, not blocked");
        }
        return row_major(weights_dims, weights.type());
    }

    ForwardPd forward(const Engine& e, const memory::desc& s, const memory::desc& w, const memory::desc& d) const {
        dnnl::primitive_attr attr = scratch_attr();
        dnnl::post_ops ops;
        if (onto_dst) {
            ops.append_sum(1.0f);
        }
        attr.set_post_ops(ops);
        // forward_training also for inference, so that weights lie alike in both.
        return bias ? compat::forward_pd<convolution_forward>(e.dnnl, attr, prop_kind::forward_training, kDirect, s, w, bias_md(), d,
                                                              strides, dilations, pad_before, pad_after)
                    : compat::forward_pd<convolution_forward>(e.dnnl, attr, prop_kind::forward_training, kDirect, s, w, d, strides,
                                                              dilations, pad_before, pad_after);
    }

    // Offers `make` the activations as they lie, then in any layout, and takes the first that is not oneDNN's reference code (10 to 2000
    // times slower), or else the first that works at all.
    template <typename Make> auto choose(Make make) const {
        std::string why = "nothing tried";
        std::optional<std::invoke_result_t<Make, const memory::desc&, const memory::desc&>> fallback;
        for (const bool any : {false, true}) {
            auto pd = attempt([&] { return make(any ? any_like(src) : src, any ? any_like(dst) : dst); }, why);
            if (pd && !is_reference(*pd)) {
                return *pd;
            }
            if (pd && !fallback) {
                fallback = pd;
            }
        }
        if (!fallback) {
            no_implementation(text, why);
        }
        return *fallback;
    }

    ForwardPd choose_forward(const Engine& e, const memory::desc& weights) const {
        return choose([&](const memory::desc& s, const memory::desc& d) { return forward(e, s, weights, d); });
    }
};

struct ConvForward final : ConvKernel {
    ConvForward(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_conv_desc& d) : ConvKernel(std::move(e), std::move(t), d) {
        const bool residual = at(4).present();
        if (residual) {
            require_same_shape(at(4), at(3), "residual and dst of a convolution");
            require_same_layout(at(4), at(3), "residual and dst of a convolution");
            require_same_type(at(4), at(3), "residual and dst of a convolution");
        }
        take_normalization(5);
        const Problem problem(desc, at(0), at(1), at(3), at(2).present(), residual);
        require_same_type(at(1), at(0), "src and weights of a convolution");
        ForwardPd pd = problem.choose_forward(*engine, problem.any_weights());
        if (!at(1).undecided()) {
            // Decided by somebody else: take that format where it is as good, else convert.
            const memory::desc given = problem.given_weights(at(1));
            if (given != pd.weights_desc()) {
                std::string why;
                auto same = attempt([&] { return problem.choose_forward(*engine, given); }, why);
                if (same && std::string(same->impl_info_str()) == pd.impl_info_str()) {
                    pd = *same;
                }
            }
        }
        decide(1, pd.weights_desc());
        weights_md = problem.given_weights(at(1));
        if (wants_own(at(0), at(3), ConvDirection::Forward, residual ? &at(4) : nullptr)) {
            take_values(2);
            return;
        }
        normalize_in_scratch();
        bind(DNNL_ARG_SRC, 0, "src", Flow::In, pd.src_desc());
        bind(DNNL_ARG_WEIGHTS, 1, "weights", Flow::In, weights_md, pd.weights_desc());
        bind_values(DNNL_ARG_BIAS, 2, Flow::In);
        bind(DNNL_ARG_DST, 3, "dst", residual ? Flow::Both : Flow::Out, pd.dst_desc());
        relu_behind = desc.relu != 0 && !relu_on_way_out(3);
        finish_reading(pd);
    }

    void execute(void* const* addresses, char* scratch, int64_t step, float learning_rate) override {
        if (winograd) {
            const float* bias = at(2).present() ? static_cast<const float*>(addresses[2]) : nullptr;
            engine->arithmetic->winograd_forward({shape_in(winograd, scratch), view(0, addresses), view(3, addresses), view(4, addresses),
                                                  multiplied(addresses[1], scratch), bias, desc.relu != 0,
                                                  normalization_in(addresses, scratch)});
            return;
        }
        if (gathers) {
            const float* bias = at(2).present() ? static_cast<const float*>(addresses[2]) : nullptr;
            engine->arithmetic->gather_forward({shape_in(gathers, scratch), view(0, addresses), view(3, addresses), view(4, addresses),
                                                multiplied(addresses[1], scratch), bias, desc.relu != 0, false,
                                                normalization_in(addresses, scratch)});
            return;
        }
        // oneDNN adds to what dst holds, so that is the residual: it lies there already, or is brought there.
        if (at(4).present() && addresses[4] != addresses[3]) {
            engine->arithmetic->copy(at(3).extent(), at(4).view(addresses[4]), at(3).view(addresses[3]));
        }
        execute_primitive(addresses, scratch, step, learning_rate);
        // oneDNN's ReLU behind a product makes 0 of NaN.
        if (relu_behind) {
            const View dst = at(3).view(addresses[3]);
            engine->arithmetic->select({Selection::Relu, at(3).extent(), dst, {}, dst});
        }
    }

private:
    bool relu_behind = false;
};

struct ConvBackwardData final : ConvKernel {
    ConvBackwardData(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_conv_desc& d) : ConvKernel(std::move(e), std::move(t), d) {
        const Problem problem(desc, at(2), at(1), at(0), false);
        require_same_type(at(1), at(0), "diffDst and weights of a convolution");
        if (at(1).undecided()) {
            decide(1, problem.choose_forward(*engine, problem.any_weights()).weights_desc());
        }
        weights_md = problem.given_weights(at(1));
        if (wants_own(at(2), at(0), ConvDirection::BackwardData)) {
            return;
        }
        const auto pd = problem.choose([&](const memory::desc& s, const memory::desc& o) {
            const ForwardPd hint = problem.forward(*engine, s, problem.any_weights(), o);
            return compat::backward_pd<convolution_backward_data>(engine->dnnl, scratch_attr(), hint, kDirect, s, problem.any_weights(), o,
                                                                  problem.strides, problem.dilations, problem.pad_before,
                                                                  problem.pad_after);
        });
        bind(DNNL_ARG_DIFF_DST, 0, "diffDst", Flow::In, pd.diff_dst_desc());
        bind(DNNL_ARG_WEIGHTS, 1, "weights", Flow::In, weights_md, pd.weights_desc());
        bind(DNNL_ARG_DIFF_SRC, 2, "diffSrc", Flow::Out, pd.diff_src_desc());
        finish(pd);
    }

    void execute(void* const* addresses, char* scratch, int64_t step, float learning_rate) override {
        if (winograd) {
            engine->arithmetic->winograd_forward({shape_in(winograd, scratch),
                                                  view(0, addresses),
                                                  view(2, addresses),
                                                  {},
                                                  turned(multiplied(addresses[1], scratch)),
                                                  nullptr,
                                                  false,
                                                  {}});
            return;
        }
        if (gathers) {
            engine->arithmetic->gather_forward({shape_in(gathers, scratch),
                                                view(0, addresses),
                                                view(2, addresses),
                                                {},
                                                exchanged(multiplied(addresses[1], scratch)),
                                                nullptr,
                                                false,
                                                true,
                                                {}});
            return;
        }
        PrimitiveKernel::execute(addresses, scratch, step, learning_rate);
    }
};

struct ConvBackwardWeights final : ConvKernel {
    ConvBackwardWeights(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_conv_desc& d)
        : ConvKernel(std::move(e), std::move(t), d) {
        take_normalization(4);
        const Problem problem(desc, at(0), at(2), at(1), at(3).present());
        require_float(at(2), "diffWeights");
        const auto choose = [&](const memory::desc& weights) {
            return problem.choose([&](const memory::desc& s, const memory::desc& o) {
                const ForwardPd hint = problem.forward(*engine, s, problem.any_weights(), o);
                return problem.bias
                           ? compat::backward_pd<convolution_backward_weights>(engine->dnnl, scratch_attr(), hint, kDirect, s, weights,
                                                                               problem.bias_md(), o, problem.strides, problem.dilations,
                                                                               problem.pad_before, problem.pad_after)
                           : compat::backward_pd<convolution_backward_weights>(engine->dnnl, scratch_attr(), hint, kDirect, s, weights, o,
                                                                               problem.strides, problem.dilations, problem.pad_before,
                                                                               problem.pad_after);
            });
        };
        // The optimizer works in the format of the weights it updates, so the gradient is wanted there, unless that costs the fast
        // implementation. In float32 forward multiplies those very weights; else only the optimizer and a conversion read them, and they
        // lie as this gradient likes.
        auto pd = choose(problem.any_diff_weights());
        if (at(2).undecided()) {
            decide(2, problem.type == memory::data_type::f32 ? problem.choose_forward(*engine, problem.any_weights()).weights_desc()
                                                             : pd.diff_weights_desc());
        }
        weights_md = problem.given_weights(at(2));
        if (wants_own(at(0), at(1), ConvDirection::BackwardWeights)) {
            take_values(3);
            return;
        }
        if (weights_md != pd.diff_weights_desc()) {
            std::string why;
            auto same = attempt([&] { return choose(weights_md); }, why);
            if (same && std::string(same->impl_info_str()) == pd.impl_info_str()) {
                pd = *same;
            }
        }
        normalize_in_scratch();
        bind(DNNL_ARG_SRC, 0, "src", Flow::In, pd.src_desc());
        bind(DNNL_ARG_DIFF_DST, 1, "diffDst", Flow::In, pd.diff_dst_desc());
        bind(DNNL_ARG_DIFF_WEIGHTS, 2, "diffWeights", Flow::Out, weights_md, pd.diff_weights_desc());
        bind_values(DNNL_ARG_DIFF_BIAS, 3, Flow::Out);
        finish_reading(pd);
    }

    void execute(void* const* addresses, char* scratch, int64_t step, float learning_rate) override {
        if (winograd) {
            engine->arithmetic->winograd_backward_weights({shape_in(winograd, scratch), view(0, addresses), view(1, addresses),
                                                           weights_at(addresses[2]), values(3, addresses),
                                                           normalization_in(addresses, scratch)});
            return;
        }
        if (gathers) {
            engine->arithmetic->gather_backward_weights({shape_in(gathers, scratch), view(0, addresses), view(1, addresses),
                                                         weights_at(addresses[2]), normalization_in(addresses, scratch)});
            return;
        }
        execute_primitive(addresses, scratch, step, learning_rate);
    }
};

} // namespace

} // namespace hbn

using namespace hbn;

hbn_status hbn_conv_forward_create(hbn_engine* engine, const hbn_conv_desc* desc, const hbn_tensor* tensors, int32_t count,
                                   hbn_kernel** kernel) noexcept {
    const Descriptor<hbn_conv_desc> checked_desc{desc, "convolution desc"};
    return count <= 5 ? create_kernel<ConvForward>(engine, tensors, count, kernel,
                                                   {{"src"}, {"weights"}, {"bias", true}, {"dst"}, {"residual", true}}, 0, checked_desc)
                      : create_kernel<ConvForward>(engine, tensors, count, kernel,
                                                   {{"src"},
                                                    {"weights"},
                                                    {"bias", true},
                                                    {"dst"},
                                                    {"residual", true},
                                                    {"src_scale", true},
                                                    {"src_shift", true},
                                                    {"src_mean", true},
                                                    {"src_variance", true}},
                                                   0, checked_desc);
}

hbn_status hbn_conv_backward_data_create(hbn_engine* engine, const hbn_conv_desc* desc, const hbn_tensor* tensors, int32_t count,
                                         hbn_kernel** kernel) noexcept {
    return create_kernel<ConvBackwardData>(engine, tensors, count, kernel, {{"diffDst"}, {"weights"}, {"diffSrc"}}, 0,
                                           Descriptor<hbn_conv_desc>{desc, "convolution desc"});
}

hbn_status hbn_conv_backward_weights_create(hbn_engine* engine, const hbn_conv_desc* desc, const hbn_tensor* tensors, int32_t count,
                                            hbn_kernel** kernel) noexcept {
    const Descriptor<hbn_conv_desc> checked_desc{desc, "convolution desc"};
    return count <= 4 ? create_kernel<ConvBackwardWeights>(engine, tensors, count, kernel,
                                                           {{"src"}, {"diffDst"}, {"diffWeights"}, {"diffBias", true}}, 0, checked_desc)
                      : create_kernel<ConvBackwardWeights>(engine, tensors, count, kernel,
                                                           {{"src"},
                                                            {"diffDst"},
                                                            {"diffWeights"},
                                                            {"diffBias", true},
                                                            {"src_scale", true},
                                                            {"src_shift", true},
                                                            {"src_mean", true},
                                                            {"src_variance", true}},
                                                           0, checked_desc);
}
