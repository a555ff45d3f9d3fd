// Pooling and local response normalization: both are one oneDNN primitive with a workspace between the directions.
#include "primitive.hpp"

namespace hbn {

namespace {

using dnnl::algorithm;
using dnnl::prop_kind;

// The workspace is bytes in a layout of the primitive's choosing.
struct WorkspaceKernel : PrimitiveKernel {
    using PrimitiveKernel::PrimitiveKernel;

protected:
    void bind_workspace(size_t index, Flow flow, const memory::desc& wanted) {
        if (wanted.get_size() == 0) {
            if (at(index).present()) {
                decide(index, row_major({1}, memory::data_type::u8)); // nothing to keep
            }
            return;
        }
        if (!at(index).present()) {
            bind_scratch(DNNL_ARG_WORKSPACE, wanted);
            return;
        }
        require(at(index).desc.layout == HBN_OPAQUE, "a workspace must be opaque");
        decide(index, wanted);
        bind(DNNL_ARG_WORKSPACE, index, "workspace", flow, wanted);
    }
};

struct PoolProblem {
    memory::dims strides, kernel, dilations{0, 0}, pad_before, pad_after;
    algorithm alg;
    memory::desc src, dst;
    std::string text;

    PoolProblem(const hbn_pool_desc& d, const Tensor& s, const Tensor& o)
        : strides{d.stride_h, d.stride_w}, kernel{d.kernel_h, d.kernel_w}, pad_before{d.pad_top, d.pad_left}, pad_after{d.pad_bottom,
                                                                                                                        d.pad_right},
          src(s.md()), dst(o.md()) {
        text = "pooling src " + s.text() + ", dst " + o.text() + ", window " + std::to_string(d.kernel_h) + "x" +
               std::to_string(d.kernel_w) + ", stride " + std::to_string(d.stride_h) + "x" + std::to_string(d.stride_w);
        require(d.kind >= HBN_POOL_MAX && d.kind <= HBN_POOL_AVERAGE_EXCLUDE_PADDING, "pooling kind is not an HBN_POOL_ value");
        require(d.kernel_h >= 1 && d.kernel_w >= 1 && d.stride_h >= 1 && d.stride_w >= 1, "windows and strides must be at least 1");
        require_same_type(s, o, "src and dst of a pooling");
        require_same_layout(s, o, "src and dst of a pooling");
        if (s.desc.n != o.desc.n || s.desc.c != o.desc.c ||
            (s.desc.h + d.pad_top + d.pad_bottom - d.kernel_h) / d.stride_h + 1 != o.desc.h ||
            (s.desc.w + d.pad_left + d.pad_right - d.kernel_w) / d.stride_w + 1 != o.desc.w) {
            invalid("shapes do not fit together: " + text);
        }
        alg = d.kind == HBN_POOL_MAX                       ? algorithm::pooling_max
              : d.kind == HBN_POOL_AVERAGE_INCLUDE_PADDING ? algorithm::pooling_avg_include_padding
                                                           : algorithm::pooling_avg_exclude_padding;
    }

    compat::pooling_forward::primitive_desc forward(const Engine& e, prop_kind prop) const {
        return compat::forward_pd<compat::pooling_forward>(e.dnnl, scratch_attr(), prop, alg, src, dst, strides, kernel, dilations,
                                                           pad_before, pad_after);
    }
};

struct PoolForward final : WorkspaceKernel {
    PoolForward(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_pool_desc& desc) : WorkspaceKernel(std::move(e), std::move(t)) {
        const PoolProblem problem(desc, at(0), at(1));
        const auto pd = problem.forward(*engine, at(2).present() ? prop_kind::forward_training : prop_kind::forward_inference);
        bind(DNNL_ARG_SRC, 0, "src", Flow::In, pd.src_desc());
        bind(DNNL_ARG_DST, 1, "dst", Flow::Out, pd.dst_desc());
        bind_workspace(2, Flow::Out, pd.workspace_desc());
        finish(pd);
    }
};

struct PoolBackward final : WorkspaceKernel {
    PoolBackward(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_pool_desc& desc)
        : WorkspaceKernel(std::move(e), std::move(t)) {
        const PoolProblem problem(desc, at(2), at(0));
        require(desc.kind != HBN_POOL_MAX || at(1).present(), "max pooling's backward pass needs its workspace");
        const auto hint = problem.forward(*engine, prop_kind::forward_training);
        const auto pd = compat::backward_pd<compat::pooling_backward>(engine->dnnl, scratch_attr(), hint, problem.alg, problem.src,
                                                                      problem.dst, problem.strides, problem.kernel, problem.dilations,
                                                                      problem.pad_before, problem.pad_after);
        bind(DNNL_ARG_DIFF_DST, 0, "diffDst", Flow::In, pd.diff_dst_desc());
        bind_workspace(1, Flow::In, pd.workspace_desc());
        bind(DNNL_ARG_DIFF_SRC, 2, "diffSrc", Flow::Out, pd.diff_src_desc());
        finish(pd);
    }
};

void check_lrn(const hbn_lrn_desc& d, const Tensor& src, const Tensor& other) {
    require(d.size >= 1 && d.size % 2 == 1, "size must be odd and positive");
    require_same_type(src, other, "tensors of a local response normalization");
    require_same_shape(src, other, "tensors of a local response normalization");
    require_same_layout(src, other, "tensors of a local response normalization");
}

struct LrnForward final : WorkspaceKernel {
    LrnForward(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_lrn_desc& d) : WorkspaceKernel(std::move(e), std::move(t)) {
        check_lrn(d, at(0), at(1));
        const auto pd =
            compat::lrn_forward(engine->dnnl, scratch_attr(), at(2).present() ? prop_kind::forward_training : prop_kind::forward_inference,
                                at(0).md(), d.size, d.alpha, d.beta, d.k);
        bind(DNNL_ARG_SRC, 0, "src", Flow::In, pd.src_desc());
        bind(DNNL_ARG_DST, 1, "dst", Flow::Out, pd.dst_desc());
        bind_workspace(2, Flow::Out, pd.workspace_desc());
        finish(pd);
    }
};

struct LrnBackward final : WorkspaceKernel {
    LrnBackward(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_lrn_desc& d) : WorkspaceKernel(std::move(e), std::move(t)) {
        check_lrn(d, at(0), at(1));
        check_lrn(d, at(0), at(3));
        const memory::desc data = at(0).md();
        const auto hint =
            compat::lrn_forward(engine->dnnl, scratch_attr(), prop_kind::forward_training, data, d.size, d.alpha, d.beta, d.k);
        const auto pd = compat::lrn_backward(engine->dnnl, scratch_attr(), data, data, d.size, d.alpha, d.beta, d.k, hint);
        bind(DNNL_ARG_SRC, 0, "src", Flow::In, data);
        bind(DNNL_ARG_DIFF_DST, 1, "diffDst", Flow::In, data);
        bind_workspace(2, Flow::In, pd.workspace_desc());
        bind(DNNL_ARG_DIFF_SRC, 3, "diffSrc", Flow::Out, data);
        finish(pd);
    }
};

} // namespace

} // namespace hbn

using namespace hbn;

hbn_status hbn_pool_forward_create(hbn_engine* engine, const hbn_pool_desc* desc, const hbn_tensor* tensors, int32_t count,
                                   hbn_kernel** kernel) noexcept {
    return create_kernel<PoolForward>(engine, tensors, count, kernel, {{"src"}, {"dst"}, {"workspace", true}}, 0,
                                      Descriptor<hbn_pool_desc>{desc, "pooling desc"});
}

hbn_status hbn_pool_backward_create(hbn_engine* engine, const hbn_pool_desc* desc, const hbn_tensor* tensors, int32_t count,
                                    hbn_kernel** kernel) noexcept {
    return create_kernel<PoolBackward>(engine, tensors, count, kernel, {{"diffDst"}, {"workspace", true}, {"diffSrc"}}, 0,
                                       Descriptor<hbn_pool_desc>{desc, "pooling desc"});
}

hbn_status hbn_lrn_forward_create(hbn_engine* engine, const hbn_lrn_desc* desc, const hbn_tensor* tensors, int32_t count,
                                  hbn_kernel** kernel) noexcept {
    return create_kernel<LrnForward>(engine, tensors, count, kernel, {{"src"}, {"dst"}, {"workspace", true}}, 0,
                                     Descriptor<hbn_lrn_desc>{desc, "lrn desc"});
}

hbn_status hbn_lrn_backward_create(hbn_engine* engine, const hbn_lrn_desc* desc, const hbn_tensor* tensors, int32_t count,
                                   hbn_kernel** kernel) noexcept {
    return create_kernel<LrnBackward>(engine, tensors, count, kernel, {{"src"}, {"diffDst"}, {"workspace"}, {"diffSrc"}}, 0,
                                      Descriptor<hbn_lrn_desc>{desc, "lrn desc"});
}
