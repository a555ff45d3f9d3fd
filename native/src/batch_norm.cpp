#include "primitive.hpp"

#include <cmath>
#include <cstring>

namespace hbn {

namespace {

// What both directions check: one layout and shape for activations, parameters that fit.
struct BatchNormKernel : hbn_kernel {
    hbn_batch_norm_desc desc;

    BatchNormKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_batch_norm_desc& d)
        : hbn_kernel(std::move(e), std::move(t)), desc(d) {
        require(d.epsilon >= 0 && std::isfinite(d.epsilon), "epsilon must be finite and not negative");
        require(d.averaging_factor >= 0 && d.averaging_factor <= 1, "averaging_factor must be in [0, 1]");
        require(d.stage >= HBN_STAGE_ALL && d.stage <= HBN_STAGE_APPLY, "stage");
        require(d.stage == HBN_STAGE_ALL || d.batch_statistics, "a stage of its own needs batch statistics");
    }

protected:
    bool library = false; // oneDNN's primitive instead of ours

    void activation(size_t i, const char* name) const {
        const Tensor& t = at(i);
        if (!t.present()) {
            return;
        }
        require_real(t, name);
        require_same_type(t, at(0), "activations of a batch normalization");
        require_same_shape(t, at(0), "activations of a batch normalization");
        require_same_layout(t, at(0), "activations of a batch normalization");
        if (t.desc.layout == HBN_OPAQUE) {
            unsupported(std::string(name) + " must be plain or blocked");
        }
        const View v = t.view(nullptr);
        if (v.lane != 0 || (v.block > 1 && t.desc.c % v.block != 0 && !v.owns_padding)) {
            unsupported(std::string(name) + " is " + t.text() + ", but a slice must start and end at a multiple of " +
                        std::to_string(v.block) + " channels; add a copy");
        }
    }

    void parameter(size_t i, const char* name) {
        if (!at(i).present()) {
            return;
        }
        decide_plain(i);
        const Tensor& t = at(i);
        const hbn_tensor& s = at(0).desc;
        require_float(t, name);
        const bool per_activation = desc.per_activation != 0;
        if (t.desc.n != 1 || t.desc.c != s.c || t.desc.h != (per_activation ? s.h : 1) || t.desc.w != (per_activation ? s.w : 1) ||
            t.is_slice()) {
            invalid(std::string(name) + " is " + t.text() + ", which does not fit src " + at(0).text());
        }
        // Per activation, parameters are read position by position as src lies; plain ones of 1x1 images lie as blocked ones do.
        if (per_activation && at(0).block != t.block && s.h * s.w > 1) {
            unsupported(std::string(name) + " must have src's layout for per-activation statistics");
        }
    }

    // As a primitive of oneDNN takes them.
    bool dense() const {
        for (const Tensor& t : tensors) {
            if (t.present() && (t.is_slice() || t.widened)) {
                return false;
            }
        }
        return true;
    }

    int64_t reserve_native_scratch() {
        return reserve(batch_norm_scratch(at(0).extent(), at(0).padded_channels()) * static_cast<int64_t>(sizeof(double)));
    }

    // oneDNN's primitive takes dense convolutional cases without a residual. Without epsilon it divides by 0 where a channel is constant.
    bool wants_library(bool residual) const {
        return desc.algorithm == HBN_BATCH_NORM_LIBRARY && desc.stage == HBN_STAGE_ALL && desc.epsilon > 0 && !desc.per_activation &&
               !residual && dense();
    }

    // The primitive's view of per-channel values: the real ones.
    memory::desc channel_values() const { return row_major({at(0).desc.c}); }

    memory handle(const memory::desc& md, void* address) const { return memory(md, engine->dnnl, address); }
};

const auto kScaleShift = dnnl::normalization_flags::use_scale | dnnl::normalization_flags::use_shift;

struct BatchNormForwardKernel final : BatchNormKernel {
    enum { Src, Scale, Shift, Residual, Dst, Mean, Variance, RunningMean, RunningVariance };

    BatchNormForwardKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_batch_norm_desc& d)
        : BatchNormKernel(std::move(e), std::move(t), d) {
        activation(Src, "src");
        activation(Residual, "residual");
        activation(Dst, "dst");
        parameter(Scale, "scale");
        parameter(Shift, "shift");
        parameter(Mean, "mean");
        parameter(Variance, "variance");
        parameter(RunningMean, "running mean");
        parameter(RunningVariance, "running variance");
        const bool batch = desc.batch_statistics != 0, running = at(RunningMean).present();
        require(running == at(RunningVariance).present(), "running mean and running variance are given together");
        require(at(Dst).present() || (batch && !at(Residual).present() && desc.stage == HBN_STAGE_ALL),
                "only a pass that is there for its batch statistics goes without dst");
        require(batch ? at(Mean).present() && at(Variance).present() : running,
                "batch statistics need mean and variance, running statistics the running ones");
        require(desc.stage != HBN_STAGE_REDUCE || running, "the sums alone need running_mean and running_variance for what rounding takes");
        require(desc.stage != HBN_STAGE_APPLY, "forward, what follows the sums is a kernel with running statistics");
        // oneDNN's inference would need a biased variance under another name; ours reads the running ones as they are.
        if (wants_library(at(Residual).present()) && at(Dst).present()) {
            auto flags = kScaleShift; // its ReLU makes 0 of NaN, so that is ours
            if (!batch) {
                flags |= dnnl::normalization_flags::use_global_stats;
            }
            const auto pd = compat::batch_norm_forward(engine->dnnl, scratch_attr(),
                                                       batch ? dnnl::prop_kind::forward_training : dnnl::prop_kind::forward_inference,
                                                       at(Src).md(), desc.epsilon, flags);
            library = true;
            implementation = pd.impl_info_str();
            scratchpad_md = pd.scratchpad_desc();
            scratchpad_offset = reserve(static_cast<int64_t>(scratchpad_md.get_size()));
            primitive = dnnl::primitive(pd.get());
        } else {
            native_offset = reserve_native_scratch();
        }
    }

    void execute(void* const* a, char* scratch, int64_t, float) override {
        if (library) {
            execute_library(a, scratch);
            return;
        }
        BatchNormForward p{};
        p.extent = at(Src).extent();
        p.src = view(Src, a);
        p.dst = view(Dst, a);
        p.residual = view(Residual, a);
        p.scale = values(Scale, a);
        p.shift = values(Shift, a);
        p.mean = values(Mean, a);
        p.variance = values(Variance, a);
        p.running_mean = values(RunningMean, a);
        p.running_variance = values(RunningVariance, a);
        p.per_activation = desc.per_activation != 0;
        p.relu = desc.relu != 0;
        p.batch_statistics = desc.batch_statistics != 0;
        p.epsilon = desc.epsilon;
        p.averaging_factor = desc.averaging_factor;
        p.stage = static_cast<Stage>(desc.stage);
        p.scratch = reinterpret_cast<double*>(scratch + native_offset);
        engine->arithmetic->batch_norm_forward(p);
    }

private:
    int64_t native_offset = 0, scratchpad_offset = 0;
    memory::desc scratchpad_md;
    dnnl::primitive primitive;

    void execute_library(void* const* a, char* scratch) {
        const bool batch = desc.batch_statistics != 0;
        const memory::desc channel = channel_values();
        std::unordered_map<int, memory> args{{DNNL_ARG_SRC, handle(at(Src).md(), a[Src])},
                                             {DNNL_ARG_DST, handle(at(Dst).md(), a[Dst])},
                                             {DNNL_ARG_SCALE, handle(channel, a[Scale])},
                                             {DNNL_ARG_SHIFT, handle(channel, a[Shift])},
                                             {DNNL_ARG_MEAN, handle(channel, a[batch ? Mean : RunningMean])},
                                             {DNNL_ARG_VARIANCE, handle(channel, a[batch ? Variance : RunningVariance])},
                                             {DNNL_ARG_SCRATCHPAD, handle(scratchpad_md, scratch + scratchpad_offset)}};
        primitive.execute(engine->stream, args);
        engine->stream.wait();
        if (desc.relu) {
            engine->arithmetic->select({Selection::Relu, at(Dst).extent(), view(Dst, a), {}, view(Dst, a)});
        }
        if (!batch) {
            return;
        }
        const int64_t channels = at(Src).desc.c;
        const double count = static_cast<double>(at(Src).count()) / static_cast<double>(channels), f = desc.averaging_factor;
        const double unbiased = count > 1 ? count / (count - 1) : 1;
        for (int64_t c = 0; at(RunningMean).present() && c < channels; c++) {
            float* mean = static_cast<float*>(a[RunningMean]) + c;
            float* variance = static_cast<float*>(a[RunningVariance]) + c;
            *mean = static_cast<float>((1 - f) * *mean + f * static_cast<float*>(a[Mean])[c]);
            *variance = static_cast<float>((1 - f) * *variance + f * unbiased * static_cast<float*>(a[Variance])[c]);
        }
        for (const size_t i : {Mean, Variance}) {
            std::memset(static_cast<float*>(a[i]) + channels, 0, static_cast<size_t>(at(i).physical_count() - channels) * sizeof(float));
        }
    }
};

struct BatchNormBackwardKernel final : BatchNormKernel {
    enum { Src, Dst, DiffDst, Scale, Shift, Mean, Variance, DiffSrc, DiffScale, DiffShift, DiffResidual, SecondDiffDst };

    BatchNormBackwardKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_batch_norm_desc& d)
        : BatchNormKernel(std::move(e), std::move(t), d) {
        activation(Src, "src");
        activation(Dst, "dst");
        activation(DiffDst, "diffDst");
        activation(DiffSrc, "diffSrc");
        activation(DiffResidual, "diffResidual");
        activation(SecondDiffDst, "second diffDst");
        require(!at(SecondDiffDst).present() || at(DiffResidual).present(), "a second diffDst needs diffResidual");
        parameter(Scale, "scale");
        parameter(Shift, "shift");
        parameter(Mean, "mean");
        parameter(Variance, "variance");
        parameter(DiffScale, "diffScale");
        parameter(DiffShift, "diffShift");
        // With constant statistics oneDNN's gradient does not look at src, and so passes over a NaN in it.
        if (desc.batch_statistics && wants_library(at(DiffResidual).present())) {
            const auto flags = kScaleShift;
            const memory::desc data = at(Src).md();
            const auto hint =
                compat::batch_norm_forward(engine->dnnl, scratch_attr(), dnnl::prop_kind::forward_training, data, desc.epsilon, flags);
            const auto pd = compat::batch_norm_backward(engine->dnnl, scratch_attr(), data, data, desc.epsilon, flags, hint);
            library = true;
            implementation = pd.impl_info_str();
            scratchpad_md = pd.scratchpad_desc();
            scratchpad_offset = reserve(static_cast<int64_t>(scratchpad_md.get_size()));
            masked_offset = desc.relu ? reserve(static_cast<int64_t>(data.get_size())) : 0;
            primitive = dnnl::primitive(pd.get());
        } else {
            native_offset = reserve_native_scratch();
        }
    }

    void execute(void* const* a, char* scratch, int64_t, float) override {
        BatchNormBackward p{};
        p.extent = at(Src).extent();
        p.src = view(Src, a);
        p.dst = view(Dst, a);
        p.diff_dst = view(DiffDst, a);
        p.diff_src = view(DiffSrc, a);
        p.diff_residual = view(DiffResidual, a);
        p.second_diff_dst = view(SecondDiffDst, a);
        p.scale = values(Scale, a);
        p.shift = values(Shift, a);
        p.mean = values(Mean, a);
        p.variance = values(Variance, a);
        p.diff_scale = values(DiffScale, a);
        p.diff_shift = values(DiffShift, a);
        p.per_activation = desc.per_activation != 0;
        p.relu = desc.relu != 0;
        p.batch_statistics = desc.batch_statistics != 0;
        p.epsilon = desc.epsilon;
        p.stage = static_cast<Stage>(desc.stage);
        p.scratch = reinterpret_cast<double*>(scratch + native_offset);
        if (library) {
            execute_library(p, a, scratch);
        } else {
            engine->arithmetic->batch_norm_backward(p);
        }
    }

private:
    int64_t native_offset = 0, scratchpad_offset = 0, masked_offset = 0;
    memory::desc scratchpad_md;
    dnnl::primitive primitive;

    void execute_library(const BatchNormBackward& p, void* const* a, char* scratch) {
        void* diff_dst = a[DiffDst];
        if (desc.relu) {
            diff_dst = scratch + masked_offset;
            engine->arithmetic->batch_norm_mask(p, at(DiffDst).view(diff_dst));
        }
        const memory::desc data = at(Src).md(), channel = channel_values();
        std::unordered_map<int, memory> args{{DNNL_ARG_SRC, handle(data, a[Src])},
                                             {DNNL_ARG_DIFF_DST, handle(data, diff_dst)},
                                             {DNNL_ARG_DIFF_SRC, handle(data, a[DiffSrc])},
                                             {DNNL_ARG_MEAN, handle(channel, a[Mean])},
                                             {DNNL_ARG_VARIANCE, handle(channel, a[Variance])},
                                             {DNNL_ARG_SCALE, handle(channel, a[Scale])},
                                             {DNNL_ARG_DIFF_SCALE, handle(channel, a[DiffScale])},
                                             {DNNL_ARG_DIFF_SHIFT, handle(channel, a[DiffShift])},
                                             {DNNL_ARG_SCRATCHPAD, handle(scratchpad_md, scratch + scratchpad_offset)}};
        if (compat::batch_norm_backward_takes_shift) {
            args.emplace(DNNL_ARG_SHIFT, handle(channel, a[Shift]));
        }
        primitive.execute(engine->stream, args);
        engine->stream.wait();
        const int64_t channels = at(Src).desc.c;
        for (const size_t i : {DiffScale, DiffShift}) {
            std::memset(static_cast<float*>(a[i]) + channels, 0, static_cast<size_t>(at(i).physical_count() - channels) * sizeof(float));
        }
    }
};

} // namespace

} // namespace hbn

using namespace hbn;

hbn_status hbn_batch_norm_forward_create(hbn_engine* engine, const hbn_batch_norm_desc* desc, const hbn_tensor* tensors, int32_t count,
                                         hbn_kernel** kernel) noexcept {
    return create_kernel<BatchNormForwardKernel>(engine, tensors, count, kernel,
                                                 {{"src"},
                                                  {"scale"},
                                                  {"shift"},
                                                  {"residual", true},
                                                  {"dst", true},
                                                  {"mean", true},
                                                  {"variance", true},
                                                  {"running mean", true},
                                                  {"running variance", true}},
                                                 0, Descriptor<hbn_batch_norm_desc>{desc, "batch normalization desc"});
}

hbn_status hbn_batch_norm_backward_create(hbn_engine* engine, const hbn_batch_norm_desc* desc, const hbn_tensor* tensors, int32_t count,
                                          hbn_kernel** kernel) noexcept {
    return create_kernel<BatchNormBackwardKernel>(engine, tensors, count, kernel,
                                                  {{"src"},
                                                   {"dst", true},
                                                   {"diffDst"},
                                                   {"scale"},
                                                   {"shift"},
                                                   {"mean"},
                                                   {"variance"},
                                                   {"diffSrc"},
                                                   {"diffScale"},
                                                   {"diffShift"},
                                                   {"diffResidual", true},
                                                   {"second diffDst", true}},
                                                  0, Descriptor<hbn_batch_norm_desc>{desc, "batch normalization desc"});
}
