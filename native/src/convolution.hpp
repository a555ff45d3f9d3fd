// What the three passes of a convolution share: whose kernel runs them, what it reads normalized, and its copy of the weights.
#ifndef HBN_CONVOLUTION_HPP
#define HBN_CONVOLUTION_HPP

#include "gather.hpp"
#include "primitive.hpp"

#include <algorithm>
#include <array>

namespace hbn {

// One of oneDNN's direct convolutions, or our own Winograd where that is the faster (plan_winograd). Both leave the weights in the format
// that the direct forward pass prefers, so that nothing outside depends on the choice.
struct ConvKernel : PrimitiveKernel {
    ConvKernel(std::shared_ptr<Engine> e, std::vector<Tensor> t, const hbn_conv_desc& desc)
        : PrimitiveKernel(std::move(e), std::move(t)), desc(desc) {}

protected:
    hbn_conv_desc desc;
    std::optional<WinogradPlan> winograd;
    std::optional<GatherPlan> gathers;

    // Plans one of our own for these tensors, and takes its scratch. False: the library's. Ours multiply with float32: of bfloat16 weights
    // they have a copy, in their layout where elements can be told apart in it.
    bool wants_own(const Tensor& src, const Tensor& dst, ConvDirection direction, const Tensor* residual = nullptr) {
        const bool copied = direction != ConvDirection::BackwardWeights && at(1).desc.data_type == HBN_BFLOAT16;
        const memory::desc weights = !copied || at(1).widened ? weights_md : row_major(compat::dims_of(weights_md));
        winograd = plan_winograd(*engine, desc, src, dst, weights, direction, residual);
        if (winograd) {
            take_scratch(winograd->implementation, winograd->shared_bytes, winograd->own_bytes);
        } else if ((direction != ConvDirection::BackwardWeights || !at(3).present()) && // makes no gradient of a bias
                   (gathers = plan_gather(*engine, desc, src, dst, weights, direction, residual))) {
            take_scratch(gathers->implementation, gathers->shared_bytes, gathers->own_bytes);
        }
        if (!winograd && !gathers) {
            return false;
        }
        if (copied) {
            Tensor copy = at(1).dense();
            copy.desc.data_type = HBN_FLOAT32;
            copy.desc.layout = HBN_OPAQUE;
            copy.format = weights;
            weights_copy = Reorder(*engine, at(1), weights_md, copy, weights);
            weights_offset = reserve(static_cast<int64_t>(weights.get_size()));
            conversions = "weights bf16 " + layout_name(weights_md) + " -> fp32 " + layout_name(weights);
            weights_md = weights;
        }
        return true;
    }

    // Takes src_scale, src_shift, src_mean and src_variance, tensors number `first` and on, where they are given. To be called before src
    // is looked at: where a primitive of the library reads src, that is a dense copy in scratch from here on.
    void take_normalization(size_t first) {
        if (tensors.size() <= first || !at(first).present()) {
            require(tensors.size() <= first || (!at(first + 1).present() && !at(first + 2).present() && !at(first + 3).present()),
                    "src_scale, src_shift, src_mean and src_variance are given together");
            return;
        }
        const Tensor& src = at(0);
        if (src.desc.layout != HBN_BLOCKED || (src.desc.data_type != HBN_FLOAT32 && !src.widened) || src.view(nullptr).lane != 0 ||
            (src.desc.c % src.block != 0 && !src.view(nullptr).owns_padding)) {
            unsupported(
                "src is " + src.text() +
                ", but only whole blocks, of float32 where oneDNN has bfloat16 of its own, are normalized on their way into a convolution");
        }
        require(desc.src_epsilon >= 0, "src_epsilon must not be negative");
        for (size_t i = first; i < first + 4; i++) {
            require(take_values(i) && at(i).desc.c == src.desc.c && at(i).desc.data_type == HBN_FLOAT32,
                    "src_scale, src_shift, src_mean and src_variance are given together, as many float32 as src has channels");
        }
        normalization_at = first;
    }

    bool normalizes() const { return normalization_at != 0; }

    // After take_normalization, where no kernel of ours reads src: src becomes its normalized copy.
    void normalize_in_scratch() {
        if (!normalizes()) {
            return;
        }
        raw_src = at(0);
        hbn_tensor whole = raw_src.desc;
        whole.root_channels = whole.c;
        whole.channel_offset = 0;
        whole.data_type = HBN_FLOAT32;
        tensors[0] = make_tensor(*engine, whole, "src");
        normalized_offset = reserve(at(0).physical_bytes());
        statistics_offset = reserve(batch_norm_scratch(at(0).extent(), at(0).padded_channels()) * static_cast<int64_t>(sizeof(double)));
    }

    // As finish, for a primitive that reads src; the name says where that is a copy.
    template <typename Pd> void finish_reading(const Pd& pd) {
        finish(pd);
        if (normalizes()) {
            implementation += " on normalized src";
        }
    }

    // Runs the primitive, on the normalized copy of src where that is wanted.
    void execute_primitive(void* const* addresses, char* scratch, int64_t step, float learning_rate) {
        if (!normalizes()) {
            PrimitiveKernel::execute(addresses, scratch, step, learning_rate);
            return;
        }
        BatchNormForward p{};
        p.extent = at(0).extent();
        p.src = raw_src.view(addresses[0]);
        p.dst = at(0).view(scratch + normalized_offset);
        if (raw_src.widened) {
            engine->arithmetic->copy(p.extent, p.src, p.dst);
            p.src = p.dst;
        }
        p.scale = values(normalization_at, addresses);
        p.shift = values(normalization_at + 1, addresses);
        p.running_mean = values(normalization_at + 2, addresses);
        p.running_variance = values(normalization_at + 3, addresses);
        p.relu = desc.src_relu != 0;
        p.epsilon = desc.src_epsilon;
        p.scratch = reinterpret_cast<double*>(scratch + statistics_offset);
        engine->arithmetic->batch_norm_forward(p);
        std::array<void*, kMostTensors> with_copy;
        std::copy_n(addresses, tensors.size(), with_copy.begin());
        with_copy[0] = scratch + normalized_offset;
        PrimitiveKernel::execute(with_copy.data(), scratch, step, learning_rate);
    }

    // What our own kernels do to src.
    Normalization normalization_in(void* const* addresses, char* scratch) const {
        if (!normalizes()) {
            return {};
        }
        float* to = reinterpret_cast<float*>(scratch + coefficients_offset);
        engine->arithmetic->batch_norm_affine(at(0).desc.c, padded_src(), values(normalization_at, addresses),
                                              values(normalization_at + 1, addresses), values(normalization_at + 2, addresses),
                                              values(normalization_at + 3, addresses), desc.src_epsilon, to);
        return {to, to + padded_src(), to + 2 * padded_src(), desc.src_relu != 0};
    }

    template <typename Plan> auto shape_in(const Plan& plan, char* scratch) const {
        auto s = plan->shape;
        s.shared = reinterpret_cast<float*>(scratch + shared_offset);
        s.own = reinterpret_cast<float*>(scratch + own_offset);
        return s;
    }

    // The weights' place, in the format they were planned with.
    Weights weights_at(void* address) const { return *weights_layout(weights_md, static_cast<float*>(address)); }

    // The same of the weights that are multiplied, which may be a copy.
    Weights multiplied(void* address, char* scratch) {
        if (!weights_copy) {
            return weights_at(address);
        }
        weights_copy->execute(*engine, address, scratch + weights_offset, nullptr);
        return weights_at(scratch + weights_offset);
    }

    memory::desc weights_md;

private:
    static constexpr size_t kMostTensors = 9;

    std::optional<Reorder> weights_copy;
    int64_t weights_offset = 0;
    size_t normalization_at = 0; // number of src_scale; 0: src is taken as it is
    Tensor raw_src;
    int64_t shared_offset = 0, own_offset = 0, coefficients_offset = 0, normalized_offset = 0, statistics_offset = 0;

    int64_t padded_src() const { return at(0).padded_channels(); }

    void take_scratch(const std::string& name, int64_t shared_bytes, int64_t own_bytes) {
        implementation = name;
        shared_offset = reserve(shared_bytes);
        own_offset = reserve(own_bytes);
        coefficients_offset = normalizes() ? reserve(3 * padded_src() * static_cast<int64_t>(sizeof(float))) : 0;
    }
};

} // namespace hbn

#endif
