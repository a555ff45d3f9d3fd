#include "primitive.hpp"

namespace hbn {

namespace {

using dnnl::inner_product_backward_data;
using dnnl::inner_product_backward_weights;
using dnnl::inner_product_forward;

// A fully connected layer in oneDNN's terms: src as it lies (four axes), dst a dense N x outputs matrix.
struct Problem {
    memory::desc src, dst, dst_given;
    memory::dims weights_dims;
    memory::data_type type; // of src and multiplied weights; dst may be float32, and the gradient of the weights is
    bool bias;
    std::string text;

    Problem(const Tensor& s, const Tensor& w, const Tensor& d, bool bias)
        : src(s.md()), weights_dims(w.dims()), type(s.type()), bias(bias) {
        text = "fully connected src " + s.text() + ", weights " + w.text() + ", dst " + d.text();
        require_real(s, "src");
        require_real(d, "dst");
        if (s.desc.n != d.desc.n || w.desc.n != d.desc.c || w.desc.c != s.desc.c || w.desc.h != s.desc.h || w.desc.w != s.desc.w ||
            d.desc.h != 1 || d.desc.w != 1) {
            invalid("shapes do not fit together: " + text);
        }
        if (s.desc.layout == HBN_OPAQUE || d.desc.layout == HBN_OPAQUE || w.desc.layout == HBN_BLOCKED) {
            unsupported("activations must be plain or blocked and weights plain or opaque: " + text);
        }
        const memory::dims dims{d.desc.n, d.desc.c};
        dst = row_major(dims, d.type());
        // A blocked matrix is row-major with padded rows.
        dst_given = memory::desc(dims, d.type(), memory::dims{d.padded_channels(), 1});
    }

    memory::desc any_weights() const { return any_weights(type); }
    memory::desc any_weights(memory::data_type t) const { return memory::desc(weights_dims, t, memory::format_tag::any); }
    memory::desc given_weights(const Tensor& w) const { return w.format ? *w.format : row_major(weights_dims, w.type()); }
    memory::desc bias_md() const { return row_major({weights_dims[0]}); }

    inner_product_forward::primitive_desc forward(const Engine& e, const memory::desc& weights) const {
        return bias ? compat::forward_pd<inner_product_forward>(e.dnnl, scratch_attr(), dnnl::prop_kind::forward_training, src, weights,
                                                                bias_md(), dst)
                    : compat::forward_pd<inner_product_forward>(e.dnnl, scratch_attr(), dnnl::prop_kind::forward_training, src, weights,
                                                                dst);
    }

    // The weights format wished for, if it gives the implementation that a free choice gives; else the free choice.
    template <typename Make, typename Format>
    auto choose(Make make, const memory::desc& given, const memory::desc& any, Format format) const {
        std::string why;
        auto free_choice = attempt([&] { return make(any); }, why);
        if (free_choice && format(*free_choice) == given) {
            return *free_choice;
        }
        auto same = attempt([&] { return make(given); }, why);
        if (same && (!free_choice || std::string(same->impl_info_str()) == free_choice->impl_info_str())) {
            return *same;
        }
        if (!free_choice) {
            no_implementation(text, why);
        }
        return *free_choice;
    }
};

struct InnerProductForward final : PrimitiveKernel {
    InnerProductForward(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_inner_product_desc&)
        : PrimitiveKernel(std::move(e), std::move(t)) {
        const Problem problem(at(0), at(1), at(3), at(2).present());
        require_same_type(at(1), at(0), "src and weights of a fully connected layer");
        const auto pd = problem.choose([&](const memory::desc& w) { return problem.forward(*engine, w); },
                                       at(1).undecided() ? problem.any_weights() : problem.given_weights(at(1)), problem.any_weights(),
                                       [](const auto& p) { return p.weights_desc(); });
        decide(1, pd.weights_desc());
        bind(DNNL_ARG_SRC, 0, "src", Flow::In, pd.src_desc());
        bind(DNNL_ARG_WEIGHTS, 1, "weights", Flow::In, problem.given_weights(at(1)), pd.weights_desc());
        bind_values(DNNL_ARG_BIAS, 2, Flow::In);
        bind(DNNL_ARG_DST, 3, "dst", Flow::Out, problem.dst_given, pd.dst_desc());
        keep_padding_zero(3);
        finish(pd);
    }
};

struct InnerProductBackwardData final : PrimitiveKernel {
    InnerProductBackwardData(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_inner_product_desc&)
        : PrimitiveKernel(std::move(e), std::move(t)) {
        const Problem problem(at(2), at(1), at(0), false);
        require_same_type(at(1), at(0), "diffDst and weights of a fully connected layer");
        const auto hint = problem.forward(*engine, problem.any_weights());
        decide(1, hint.weights_desc());
        const auto pd = problem.choose(
            [&](const memory::desc& w) {
                return compat::backward_pd<inner_product_backward_data>(engine->dnnl, scratch_attr(), hint, problem.src, w, problem.dst);
            },
            problem.given_weights(at(1)), problem.any_weights(), [](const auto& p) { return p.weights_desc(); });
        bind(DNNL_ARG_DIFF_DST, 0, "diffDst", Flow::In, problem.dst_given, pd.diff_dst_desc());
        bind(DNNL_ARG_WEIGHTS, 1, "weights", Flow::In, problem.given_weights(at(1)), pd.weights_desc());
        bind(DNNL_ARG_DIFF_SRC, 2, "diffSrc", Flow::Out, pd.diff_src_desc());
        finish(pd);
    }
};

struct InnerProductBackwardWeights final : PrimitiveKernel {
    InnerProductBackwardWeights(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_inner_product_desc&)
        : PrimitiveKernel(std::move(e), std::move(t)) {
        const Problem problem(at(0), at(2), at(1), at(3).present());
        require_float(at(2), "diffWeights");
        const auto hint = problem.forward(*engine, problem.any_weights());
        if (problem.type == memory::data_type::f32) {
            decide(2, hint.weights_desc());
        }
        const memory::desc any = problem.any_weights(memory::data_type::f32);
        const auto pd = problem.choose(
            [&](const memory::desc& w) {
                return problem.bias ? compat::backward_pd<inner_product_backward_weights>(engine->dnnl, scratch_attr(), hint, problem.src,
                                                                                          w, problem.bias_md(), problem.dst)
                                    : compat::backward_pd<inner_product_backward_weights>(engine->dnnl, scratch_attr(), hint, problem.src,
                                                                                          w, problem.dst);
            },
            at(2).undecided() ? any : problem.given_weights(at(2)), any, [](const auto& p) { return p.diff_weights_desc(); });
        decide(2, pd.diff_weights_desc());
        bind(DNNL_ARG_SRC, 0, "src", Flow::In, pd.src_desc());
        bind(DNNL_ARG_DIFF_DST, 1, "diffDst", Flow::In, problem.dst_given, pd.diff_dst_desc());
        bind(DNNL_ARG_DIFF_WEIGHTS, 2, "diffWeights", Flow::Out, problem.given_weights(at(2)), pd.diff_weights_desc());
        bind_values(DNNL_ARG_DIFF_BIAS, 3, Flow::Out);
        finish(pd);
    }
};

} // namespace

} // namespace hbn

using namespace hbn;

hbn_status hbn_inner_product_forward_create(hbn_engine* engine, const hbn_inner_product_desc* desc, const hbn_tensor* tensors,
                                            int32_t count, hbn_kernel** kernel) noexcept {
    return create_kernel<InnerProductForward>(engine, tensors, count, kernel, {{"src"}, {"weights"}, {"bias", true}, {"dst"}}, 0,
                                              Descriptor<hbn_inner_product_desc>{desc, "inner product desc"});
}

hbn_status hbn_inner_product_backward_data_create(hbn_engine* engine, const hbn_inner_product_desc* desc, const hbn_tensor* tensors,
                                                  int32_t count, hbn_kernel** kernel) noexcept {
    return create_kernel<InnerProductBackwardData>(engine, tensors, count, kernel, {{"diffDst"}, {"weights"}, {"diffSrc"}}, 0,
                                                   Descriptor<hbn_inner_product_desc>{desc, "inner product desc"});
}

hbn_status hbn_inner_product_backward_weights_create(hbn_engine* engine, const hbn_inner_product_desc* desc, const hbn_tensor* tensors,
                                                     int32_t count, hbn_kernel** kernel) noexcept {
    return create_kernel<InnerProductBackwardWeights>(engine, tensors, count, kernel,
                                                      {{"src"}, {"diffDst"}, {"diffWeights"}, {"diffBias", true}}, 0,
                                                      Descriptor<hbn_inner_product_desc>{desc, "inner product desc"});
}
