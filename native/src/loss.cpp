// Softmax and cross-entropy: our own kernel, in double where it sums.
#include "kernel.hpp"

namespace hbn {

namespace {

// A matrix: one row per image, `classes` wide; blocked rows are padded.
struct RowsKernel : hbn_kernel {
    using hbn_kernel::hbn_kernel;

protected:
    void require_matrix(size_t i, const char* name, bool any_real = false) const {
        const Tensor& t = at(i);
        if (!t.present()) {
            return;
        }
        any_real ? require_real(t, name) : require_float(t, name);
        require_same_shape(t, at(0), "matrices of a softmax");
        if (t.desc.h != 1 || t.desc.w != 1 || t.desc.layout == HBN_OPAQUE || t.desc.channel_offset != 0) {
            unsupported(std::string(name) + " must be an N x classes matrix, plain or blocked, found " + t.text());
        }
    }

    static float* floats(const View& v) { return static_cast<float*>(v.data); }

    void close(size_t i, void* const* a) const {
        if (at(i).present()) {
            engine->arithmetic->zero_padding(at(i).extent(), view(i, a));
        }
    }
};

struct LossKernel final : RowsKernel {
    enum { Logits, Labels, Probabilities, LossValue, DiffLogits, SecondLabels, LabelWeights };
    hbn_loss_desc desc;

    LossKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_loss_desc& d) : RowsKernel(std::move(e), std::move(t)), desc(d) {
        require_matrix(Logits, "logits");
        require_matrix(Probabilities, "probabilities");
        require_matrix(DiffLogits, "diffLogits", true);
        require(at(Labels).desc.data_type == HBN_INT32 && at(Labels).count() == at(Logits).desc.n, "labels must be one int32 per image");
        require_float(at(LossValue), "loss");
        require(d.label_smoothing >= 0 && d.label_smoothing <= 1, "label_smoothing must be in [0, 1]");
        if (at(SecondLabels).present() || at(LabelWeights).present()) {
            require(at(SecondLabels).present() && at(LabelWeights).present(), "second labels and label weights are given together");
            require(at(SecondLabels).desc.data_type == HBN_INT32 && at(SecondLabels).count() == at(Logits).desc.n,
                    "second labels must be one int32 per image");
            require_float(at(LabelWeights), "label weights");
            require(at(LabelWeights).count() == at(Logits).desc.n, "label weights must be one float per image");
            decide_plain(LabelWeights);
        }
        decide_plain(LossValue);
        reserve(at(Logits).desc.n * static_cast<int64_t>(sizeof(double)));
    }

    void execute(void* const* a, char* scratch, int64_t, float) override {
        check_labels(static_cast<const int32_t*>(a[Labels]));
        const int32_t* second = at(SecondLabels).present() ? static_cast<const int32_t*>(a[SecondLabels]) : nullptr;
        if (second != nullptr) {
            check_labels(second);
        }
        const int32_t rows = at(Logits).desc.n, classes = at(Logits).desc.c;
        const View z = view(Logits, a), p = view(Probabilities, a), d = view(DiffLogits, a);
        engine->arithmetic->loss({rows, classes, floats(z), z.image_stride, static_cast<const int32_t*>(a[Labels]), floats(p),
                                  p.image_stride, static_cast<float*>(a[LossValue]), d.data, d.image_stride, d.element,
                                  desc.label_smoothing, desc.weight, reinterpret_cast<double*>(scratch), second,
                                  second != nullptr ? static_cast<const float*>(a[LabelWeights]) : nullptr, desc.binary != 0,
                                  desc.target_threshold});
        close(Probabilities, a);
        close(DiffLogits, a);
    }

private:
    void check_labels(const int32_t* labels) const {
        const int32_t rows = at(Logits).desc.n, classes = at(Logits).desc.c;
        for (int32_t n = 0; n < rows; n++) {
            if (labels[n] < 0 || labels[n] >= classes) {
                throw Error(HBN_RUNTIME, "label " + std::to_string(labels[n]) + " of image " + std::to_string(n) + " is not in 0 .. " +
                                             std::to_string(classes - 1) + ", the classes of the network");
            }
        }
    }
};

struct SoftmaxKernel final : RowsKernel {
    SoftmaxKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t) : RowsKernel(std::move(e), std::move(t)) {
        require_matrix(0, "src");
        require_matrix(1, "dst");
    }

    void execute(void* const* a, char*, int64_t, float) override {
        const View z = view(0, a), p = view(1, a);
        engine->arithmetic->loss({at(0).desc.n,
                                  at(0).desc.c,
                                  floats(z),
                                  z.image_stride,
                                  nullptr,
                                  floats(p),
                                  p.image_stride,
                                  nullptr,
                                  nullptr,
                                  0,
                                  {},
                                  0,
                                  0,
                                  nullptr,
                                  nullptr,
                                  nullptr,
                                  false,
                                  0});
        close(1, a);
    }
};

} // namespace

} // namespace hbn

using namespace hbn;

hbn_status hbn_loss_create(hbn_engine* engine, const hbn_loss_desc* desc, const hbn_tensor* tensors, int32_t count,
                           hbn_kernel** kernel) noexcept {
    return create_kernel<LossKernel>(
        engine, tensors, count, kernel,
        {{"logits"}, {"labels"}, {"probabilities"}, {"loss"}, {"diffLogits", true}, {"second labels", true}, {"label weights", true}}, 0,
        Descriptor<hbn_loss_desc>{desc, "loss desc"});
}

hbn_status hbn_softmax_create(hbn_engine* engine, const hbn_tensor* tensors, int32_t count, hbn_kernel** kernel) noexcept {
    return create_kernel<SoftmaxKernel>(engine, tensors, count, kernel, {{"src"}, {"dst"}}, 0);
}
