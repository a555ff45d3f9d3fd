// Pooling, by our own arithmetic, and local response normalization, which is one oneDNN primitive with a workspace between the directions.
#include "primitive.hpp"

namespace hbn {

namespace {

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

// What both directions of a pooling share. src is the tensor under the windows and dst the pooled one, or their gradients.
struct PoolKernel : hbn_kernel {
    PoolKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_pool_desc& d, size_t src, size_t dst, size_t workspace)
        : hbn_kernel(std::move(e), std::move(t)), src(src), dst(dst), workspace(workspace) {
        const Tensor &s = at(src), &o = at(dst);
        const std::string text = "pooling src " + s.text() + ", dst " + o.text() + ", window " + std::to_string(d.kernel_h) + "x" +
                                 std::to_string(d.kernel_w) + ", stride " + std::to_string(d.stride_h) + "x" + std::to_string(d.stride_w);
        require(d.kind >= HBN_POOL_MAX && d.kind <= HBN_POOL_AVERAGE_EXCLUDE_PADDING, "pooling kind is not an HBN_POOL_ value");
        require(d.kernel_h >= 1 && d.kernel_w >= 1 && d.stride_h >= 1 && d.stride_w >= 1, "windows and strides must be at least 1");
        require(d.pad_top >= 0 && d.pad_top < d.kernel_h && d.pad_bottom >= 0 && d.pad_bottom < d.kernel_h && d.pad_left >= 0 &&
                    d.pad_left < d.kernel_w && d.pad_right >= 0 && d.pad_right < d.kernel_w,
                "padding of a pooling must be smaller than its window");
        require_same_type(s, o, "src and dst of a pooling");
        require_same_layout(s, o, "src and dst of a pooling");
        if (s.desc.layout == HBN_OPAQUE) {
            unsupported("src and dst of a pooling must be plain or blocked, found " + s.text());
        }
        if (s.desc.n != o.desc.n || s.desc.c != o.desc.c ||
            (s.desc.h + d.pad_top + d.pad_bottom - d.kernel_h) / d.stride_h + 1 != o.desc.h ||
            (s.desc.w + d.pad_left + d.pad_right - d.kernel_w) / d.stride_w + 1 != o.desc.w) {
            invalid("shapes do not fit together: " + text);
        }
        maximum = d.kind == HBN_POOL_MAX;
        whole_window = d.kind == HBN_POOL_AVERAGE_INCLUDE_PADDING;
        problem = {s.desc.n,   s.desc.c,  s.desc.h,   s.desc.w, o.desc.h,     o.desc.w, d.kernel_h, d.kernel_w, d.stride_h,
                   d.stride_w, d.pad_top, d.pad_left, maximum,  whole_window, {},       {},         {}};
        decide_workspace(static_cast<int64_t>(d.kernel_h) * d.kernel_w <= 256 ? memory::data_type::u8 : memory::data_type::s32);
    }

protected:
    const Pooling& on(void* const* addresses) {
        problem.src = view(src, addresses);
        problem.dst = view(dst, addresses);
        if (maximum && at(workspace).present()) {
            // Shaped and blocked like dst, but whole.
            Tensor whole = at(dst);
            whole.desc.root_channels = whole.desc.c;
            whole.desc.channel_offset = 0;
            problem.index = whole.view(addresses[workspace]);
        }
        return problem;
    }

    bool maximum, whole_window;

private:
    size_t src, dst, workspace;
    Pooling problem;

    void decide_workspace(memory::data_type type) {
        if (!at(workspace).present()) {
            return;
        }
        if (!maximum) {
            decide(workspace, row_major({1}, memory::data_type::u8)); // nothing to keep
            return;
        }
        require(at(workspace).desc.layout == HBN_OPAQUE, "a workspace must be opaque");
        const Tensor& o = at(dst);
        const memory::desc wanted(o.dims(), type,
                                  o.block == 16  ? memory::format_tag::nChw16c
                                  : o.block == 8 ? memory::format_tag::nChw8c
                                                 : memory::format_tag::nchw);
        decide(workspace, wanted);
        if (*at(workspace).format != wanted) {
            unsupported("the workspace of a pooling was written by another: found " + at(workspace).text() + ", expected " +
                        layout_name(wanted, true));
        }
    }
};

struct PoolForward final : PoolKernel {
    PoolForward(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_pool_desc& d)
        : PoolKernel(std::move(e), std::move(t), d, 0, 1, 2) {}

    void execute(void* const* addresses, char*, int64_t, float) override { engine->arithmetic->pool_forward(on(addresses)); }
};

struct PoolBackward final : PoolKernel {
    PoolBackward(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_pool_desc& d)
        : PoolKernel(std::move(e), std::move(t), d, 2, 0, 1) {
        require(!maximum || at(1).present(), "max pooling's backward pass needs its workspace");
    }

    void execute(void* const* addresses, char*, int64_t, float) override { engine->arithmetic->pool_backward(on(addresses)); }
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
