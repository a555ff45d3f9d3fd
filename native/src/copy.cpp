// Element by element, by our own arithmetic: copy, sum, dropout, input preparation.
#include "primitive.hpp"

namespace hbn {

namespace {

void require_activation(const Tensor& t, const char* name) {
    require_real(t, name);
    if (t.desc.layout == HBN_OPAQUE && !(t.format && *t.format == row_major(t.dims(), t.type()))) {
        unsupported(std::string(name) + " must be plain or blocked, found " + t.text());
    }
}

struct CopyKernel final : hbn_kernel {
    CopyKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t) : hbn_kernel(std::move(e), std::move(t)) {
        require_same_shape(at(0), at(1), "src and dst of a copy");
        require_real(at(0), "src");
        require_real(at(1), "dst");
        // An undecided tensor follows the other.
        if (at(0).undecided() || at(1).undecided()) {
            const size_t open = at(0).undecided() ? 0 : 1, other = 1 - open;
            if (at(other).format && at(other).desc.data_type == at(open).desc.data_type) {
                decide(open, *at(other).format);
            }
            decide_plain(open);
            decide_plain(other);
        }
        if (at(0).format || at(1).format) {
            const memory::desc from = at(0).md(), to = at(1).md();
            if (compat::dims_of(from) != compat::dims_of(to) || at(0).is_slice() || at(1).is_slice()) {
                unsupported("cannot copy " + at(0).text() + " to " + at(1).text());
            }
            reorder = Reorder(*engine, at(0), from, at(1), to);
            scratch_offset = reserve(reorder->scratch_bytes());
            implementation = reorder->moves() ? "reorder" : implementation;
        }
    }

    void execute(void* const* a, char* scratch, int64_t, float) override {
        if (reorder) {
            reorder->execute(*engine, a[0], a[1], scratch + scratch_offset);
        } else {
            engine->arithmetic->copy(at(0).extent(), view(0, a), view(1, a));
        }
    }

private:
    std::optional<Reorder> reorder;
    int64_t scratch_offset = 0;
};

struct SumKernel final : hbn_kernel {
    SumKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t) : hbn_kernel(std::move(e), std::move(t)), views(tensors.size()) {
        require(tensors.size() >= 2 && tensors.size() <= 65, "a sum takes 1 to 64 sources");
        for (size_t i = 0; i < tensors.size(); i++) {
            decide_plain(i);
            require_activation(at(i), "tensors of a sum");
            require_same_type(at(i), at(0), "tensors of a sum");
            require_same_shape(at(i), at(0), "tensors of a sum");
        }
    }

    void execute(void* const* a, char*, int64_t, float) override {
        for (size_t i = 0; i < tensors.size(); i++) {
            views[i] = view(i, a);
        }
        engine->arithmetic->sum(at(0).extent(), views.data() + 1, static_cast<int64_t>(views.size()) - 1, views[0]);
    }

private:
    std::vector<View> views;
};

struct DropoutKernel final : hbn_kernel {
    hbn_dropout_desc desc;

    DropoutKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_dropout_desc& d)
        : hbn_kernel(std::move(e), std::move(t)), desc(d) {
        require_activation(at(0), "src");
        require_activation(at(1), "dst");
        require_same_type(at(0), at(1), "src and dst of a dropout");
        require_same_shape(at(0), at(1), "src and dst of a dropout");
    }

    void execute(void* const* a, char*, int64_t step, float) override {
        engine->arithmetic->dropout(
            {at(0).extent(), view(0, a), view(1, a), desc.seed, desc.stream, desc.threshold, desc.kept_scale, step});
    }
};

struct InputKernel final : hbn_kernel {
    InputKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t, const float* mean_values, const float* inverse_values)
        : hbn_kernel(std::move(e), std::move(t)) {
        require(mean_values != nullptr && inverse_values != nullptr, "mean and inverse_deviation must not be null");
        require(at(0).desc.data_type == HBN_UINT8 && at(0).desc.layout == HBN_PLAIN && !at(0).is_slice(),
                "src must be a plain uint8 tensor");
        require_activation(at(1), "dst");
        require_same_shape(at(0), at(1), "src and dst of an input preparation");
        mean.assign(mean_values, mean_values + at(0).desc.c);
        inverse_deviation.assign(inverse_values, inverse_values + at(0).desc.c);
    }

    void execute(void* const* a, char*, int64_t, float) override {
        engine->arithmetic->input({at(0).extent(), static_cast<const uint8_t*>(a[0]), view(1, a), mean.data(), inverse_deviation.data()});
    }

private:
    std::vector<float> mean, inverse_deviation;
};

} // namespace

} // namespace hbn

using namespace hbn;

hbn_status hbn_copy_create(hbn_engine* engine, const hbn_tensor* tensors, int32_t count, hbn_kernel** kernel) noexcept {
    return create_kernel<CopyKernel>(engine, tensors, count, kernel, {{"src"}, {"dst"}}, 0);
}

hbn_status hbn_sum_create(hbn_engine* engine, const hbn_tensor* tensors, int32_t count, hbn_kernel** kernel) noexcept {
    return create_kernel<SumKernel>(engine, tensors, count, kernel, {{"dst"}, {"src"}}, 1);
}

hbn_status hbn_dropout_create(hbn_engine* engine, const hbn_dropout_desc* desc, const hbn_tensor* tensors, int32_t count,
                              hbn_kernel** kernel) noexcept {
    return create_kernel<DropoutKernel>(engine, tensors, count, kernel, {{"src"}, {"dst"}}, 0,
                                        Descriptor<hbn_dropout_desc>{desc, "dropout desc"});
}

hbn_status hbn_input_create(hbn_engine* engine, const hbn_tensor* tensors, int32_t count, const float* mean, const float* inverse_deviation,
                            hbn_kernel** kernel) noexcept {
    return create_kernel<InputKernel>(engine, tensors, count, kernel, {{"src"}, {"dst"}}, 0, mean, inverse_deviation);
}
