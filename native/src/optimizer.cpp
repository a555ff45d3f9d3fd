// Kernels over lists of tensors: every parameter of a group in one call. They work on physical memory, whatever its layout; padding is zero
// everywhere and stays zero.
#include "kernel.hpp"

#include <algorithm>
#include <cmath>

namespace hbn {

namespace {

struct GroupKernel : hbn_kernel {
    hbn_optimizer_desc desc;

    GroupKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_optimizer_desc& d)
        : hbn_kernel(std::move(e), std::move(t)), desc(d) {
        for (const Tensor& tensor : tensors) {
            require_float(tensor, "tensors of an optimizer");
            if (tensor.present() && tensor.is_slice()) {
                unsupported("an optimizer works on whole tensors, found " + tensor.text());
            }
        }
    }

protected:
    // Tensors i .. i+n-1 belong together: undecided ones follow the decided one, and all must lie alike.
    void pair(size_t first, size_t n) {
        const Tensor* pattern = nullptr;
        for (size_t i = first; i < first + n; i++) {
            if (at(i).format) {
                pattern = &at(i);
            }
        }
        const memory::desc md = pattern != nullptr ? *pattern->format : row_major(at(first).dims());
        for (size_t i = first; i < first + n; i++) {
            decide(i, md);
        }
        for (size_t i = first + 1; i < first + n; i++) {
            require_same_shape(at(i), at(first), "tensors updated together");
            const bool opaque = at(i).format && at(first).format;
            if (opaque ? *at(i).format != *at(first).format : !lies_plain_alike(at(i), at(first))) {
                unsupported("tensors updated together must lie in memory alike, found " + at(first).text() + " and " + at(i).text());
            }
        }
    }

    float* floats(size_t i, void* const* a) const { return static_cast<float*>(a[i]); }

private:
    static bool lies_plain_alike(const Tensor& a, const Tensor& b) {
        const auto plain = [](const Tensor& t) { return t.format ? *t.format == row_major(t.dims()) : t.desc.layout == HBN_PLAIN; };
        return (plain(a) && plain(b)) || (!a.format && !b.format && a.desc.layout == b.desc.layout);
    }
};

struct SgdKernel final : GroupKernel {
    SgdKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_optimizer_desc& d) : GroupKernel(std::move(e), std::move(t), d) {
        for (size_t i = 1; i < tensors.size(); i += 3) {
            pair(i, 3);
            runs.push_back({nullptr, nullptr, nullptr, at(i).physical_count()});
        }
    }

    void execute(void* const* a, char*, int64_t, float learning_rate) override {
        for (size_t r = 0; r < runs.size(); r++) {
            runs[r].parameter = floats(1 + 3 * r, a);
            runs[r].gradient = floats(2 + 3 * r, a);
            runs[r].momentum = floats(3 + 3 * r, a);
        }
        const float scale = at(0).present() ? *floats(0, a) : 1.0f;
        engine->arithmetic->sgd({runs.data(), static_cast<int64_t>(runs.size()), scale, desc.mu, desc.weight_decay,
                                 desc.rate_factor * learning_rate, desc.nesterov != 0, desc.rate_outside != 0});
    }

private:
    std::vector<SgdRun> runs;
};

struct AdamKernel final : GroupKernel {
    AdamKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_optimizer_desc& d) : GroupKernel(std::move(e), std::move(t), d) {
        require(d.beta1 >= 0 && d.beta1 < 1 && d.beta2 >= 0 && d.beta2 < 1, "beta1 and beta2 must be in [0, 1)");
        require(d.epsilon > 0, "epsilon must be above 0"); // padding is 0 / epsilon
        int64_t pieces = 0;
        for (size_t i = 1; i < tensors.size(); i += 4) {
            pair(i, 4);
            const int64_t elements = at(i).physical_count();
            runs.push_back({nullptr, nullptr, nullptr, nullptr, elements, 1});
            pieces += sum_of_squares_pieces(elements);
        }
        reserve(2 * pieces * static_cast<int64_t>(sizeof(double)));
    }

    void execute(void* const* a, char* scratch, int64_t step, float learning_rate) override {
        for (size_t r = 0; r < runs.size(); r++) {
            AdamRun& run = runs[r];
            run.parameter = floats(1 + 4 * r, a);
            run.gradient = floats(2 + 4 * r, a);
            run.first = floats(3 + 4 * r, a);
            run.second = floats(4 + 4 * r, a);
        }
        const double t = static_cast<double>(step) + 1;
        Adam p{};
        p.runs = runs.data();
        p.run_count = static_cast<int64_t>(runs.size());
        p.gradient_scale = at(0).present() ? *floats(0, a) : 1.0f;
        p.beta1 = static_cast<float>(desc.beta1);
        p.rest1 = static_cast<float>(1 - desc.beta1);
        p.beta2 = static_cast<float>(desc.beta2);
        p.rest2 = static_cast<float>(1 - desc.beta2);
        p.correction1 = static_cast<float>(1 / (1 - std::pow(desc.beta1, t)));
        p.correction2 = static_cast<float>(1 / std::sqrt(1 - std::pow(desc.beta2, t)));
        p.epsilon = desc.epsilon;
        p.weight_decay = desc.weight_decay;
        p.learning_rate = desc.rate_factor * learning_rate;
        p.trust_ratio = desc.trust_ratio != 0;
        p.scratch = reinterpret_cast<double*>(scratch);
        engine->arithmetic->adam(p);
    }

private:
    std::vector<AdamRun> runs;
};

struct ClipKernel final : GroupKernel {
    ClipKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_optimizer_desc& d) : GroupKernel(std::move(e), std::move(t), d) {
        int64_t pieces = 0;
        for (size_t i = 0; i < tensors.size(); i++) {
            decide_plain(i);
        }
        for (size_t i = 2; i < tensors.size(); i++) {
            runs.push_back({nullptr, nullptr, at(i).physical_count()});
            pieces += sum_of_squares_pieces(at(i).physical_count());
        }
        reserve(pieces * static_cast<int64_t>(sizeof(double)));
    }

    void execute(void* const* a, char* scratch, int64_t, float) override {
        for (size_t r = 0; r < runs.size(); r++) {
            runs[r].from = floats(2 + r, a);
        }
        const double total =
            engine->arithmetic->sum_of_squares(runs.data(), static_cast<int64_t>(runs.size()), reinterpret_cast<double*>(scratch));
        const double norm = std::sqrt(total);
        *floats(0, a) = norm <= desc.maximum_norm ? 1.0f : static_cast<float>(desc.maximum_norm / norm); // a NaN stays one
        *floats(1, a) = static_cast<float>(norm);
    }

private:
    std::vector<Run> runs;
};

// Pairs of tensors: the second is changed by the first.
struct PairsKernel : GroupKernel {
    PairsKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_optimizer_desc& d)
        : GroupKernel(std::move(e), std::move(t), d) {
        for (size_t i = 0; i < tensors.size(); i += 2) {
            pair(i, 2);
            runs.push_back({nullptr, nullptr, at(i).physical_count()});
        }
    }

protected:
    const Run* on(void* const* a) {
        for (size_t r = 0; r < runs.size(); r++) {
            runs[r].from = floats(2 * r, a);
            runs[r].to = floats(2 * r + 1, a);
        }
        return runs.data();
    }

    int64_t count() const { return static_cast<int64_t>(runs.size()); }

private:
    std::vector<Run> runs;
};

struct AccumulateKernel final : PairsKernel {
    AccumulateKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_optimizer_desc& d)
        : PairsKernel(std::move(e), std::move(t), d) {
        require(d.count >= 1, "count must be at least 1");
    }

    void execute(void* const* a, char*, int64_t step, float) override {
        engine->arithmetic->accumulate(on(a), count(), 1.0f / static_cast<float>(desc.count), step % desc.count == 0);
    }
};

struct AverageKernel final : PairsKernel {
    using PairsKernel::PairsKernel;

    void execute(void* const* a, char*, int64_t, float) override { engine->arithmetic->average(on(a), count(), desc.decay); }
};

// One reorder per pair: it changes type and blocking at once.
struct ConvertKernel final : hbn_kernel {
    ConvertKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t) : hbn_kernel(std::move(e), std::move(t)) {
        for (size_t i = 0; i < tensors.size(); i += 2) {
            require_float(at(i), "parameters");
            require_real(at(i + 1), "copies");
            require_same_shape(at(i), at(i + 1), "a parameter and its copy");
            if (at(i).is_slice() || at(i + 1).is_slice()) {
                unsupported("parameters and their copies are whole tensors, found " + at(i).text() + " and " + at(i + 1).text());
            }
            decide_plain(i);
            decide_plain(i + 1);
            pairs.emplace_back(*engine, at(i), as(i, i + 1), at(i + 1), as(i + 1, i));
            most_scratch = std::max(most_scratch, pairs.back().scratch_bytes());
        }
        scratch_offset = reserve(most_scratch);
        implementation = "reorder";
    }

    void execute(void* const* a, char* scratch, int64_t, float) override {
        for (size_t i = 0; i < pairs.size(); i++) {
            pairs[i].execute(*engine, a[2 * i], a[2 * i + 1], scratch + scratch_offset);
        }
    }

private:
    std::vector<Reorder> pairs;
    int64_t most_scratch = 0, scratch_offset = 0; // one copy at a time

    // How tensor i lies, with the axes of the other: plain weights of a grouped convolution have four where oneDNN's own formats have five.
    memory::desc as(size_t i, size_t other) const {
        const memory::desc plain = row_major(at(i).dims(), at(i).type());
        return at(i).md() == plain ? row_major(compat::dims_of(at(other).md()), at(i).type()) : at(i).md();
    }
};

} // namespace

} // namespace hbn

using namespace hbn;

hbn_status hbn_sgd_create(hbn_engine* engine, const hbn_optimizer_desc* desc, const hbn_tensor* tensors, int32_t count,
                          hbn_kernel** kernel) noexcept {
    return create_kernel<SgdKernel>(engine, tensors, count, kernel, {{"gradient scale", true}, {"parameter"}, {"gradient"}, {"momentum"}},
                                    3, Descriptor<hbn_optimizer_desc>{desc, "optimizer desc"});
}

hbn_status hbn_adam_create(hbn_engine* engine, const hbn_optimizer_desc* desc, const hbn_tensor* tensors, int32_t count,
                           hbn_kernel** kernel) noexcept {
    return create_kernel<AdamKernel>(engine, tensors, count, kernel,
                                     {{"gradient scale", true}, {"parameter"}, {"gradient"}, {"first moment"}, {"second moment"}}, 4,
                                     Descriptor<hbn_optimizer_desc>{desc, "optimizer desc"});
}

hbn_status hbn_clip_create(hbn_engine* engine, const hbn_optimizer_desc* desc, const hbn_tensor* tensors, int32_t count,
                           hbn_kernel** kernel) noexcept {
    return create_kernel<ClipKernel>(engine, tensors, count, kernel, {{"gradient scale"}, {"norm"}, {"gradient"}}, 1,
                                     Descriptor<hbn_optimizer_desc>{desc, "optimizer desc"});
}

hbn_status hbn_convert_create(hbn_engine* engine, const hbn_tensor* tensors, int32_t count, hbn_kernel** kernel) noexcept {
    return create_kernel<ConvertKernel>(engine, tensors, count, kernel, {{"parameter"}, {"copy"}}, 2);
}

hbn_status hbn_accumulate_create(hbn_engine* engine, const hbn_optimizer_desc* desc, const hbn_tensor* tensors, int32_t count,
                                 hbn_kernel** kernel) noexcept {
    return create_kernel<AccumulateKernel>(engine, tensors, count, kernel, {{"gradient"}, {"sum"}}, 2,
                                           Descriptor<hbn_optimizer_desc>{desc, "optimizer desc"});
}

hbn_status hbn_average_create(hbn_engine* engine, const hbn_optimizer_desc* desc, const hbn_tensor* tensors, int32_t count,
                              hbn_kernel** kernel) noexcept {
    return create_kernel<AverageKernel>(engine, tensors, count, kernel, {{"source"}, {"average"}}, 2,
                                        Descriptor<hbn_optimizer_desc>{desc, "optimizer desc"});
}
