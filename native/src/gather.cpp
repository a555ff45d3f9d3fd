#include "gather.hpp"

#include <algorithm>

namespace hbn {

namespace {

// Gathered src of a block of positions, of which a core's second-level cache holds most; the sums of backward-weights, all parts of them.
constexpr int64_t kForwardBytes = int64_t{320} << 10, kBackwardWeightsBytes = int64_t{256} << 10, kSumsBytes = int64_t{16} << 20;
// A sum over more positions than this is cut into parts, for threads to share and for its rounding.
constexpr int64_t kPositionsPerPart = 4096;
// Backward-weights works on that many positions at a time: enough for its sums to be read and written seldom.
constexpr int64_t kBackwardWeightsTile = 192;
// With fewer channels on either side, what is gathered and stored is too much beside the products.
constexpr int64_t kFewestChannels = 128;
// With fewer positions of all images, the copy of the filters in order of the product is: at 196 it made a forward pass 1.24 times as long
// as the library's, at 49 1.6 times.
constexpr int64_t kFewestPositions = 512;

// Where it was measured to be the faster (decision 027), on AVX2; nowhere else.
bool pays(const hbn_conv_desc& d, const memory::dims& taps, ConvDirection direction) {
    if (d.stride_h > 1 || d.stride_w > 1) {
        return taps[2] * taps[3] > 1 && direction != ConvDirection::BackwardData;
    }
    return taps[2] * taps[3] == 1 && direction != ConvDirection::Forward;
}

} // namespace

std::optional<GatherPlan> plan_gather(const Engine& engine, const hbn_conv_desc& d, const Tensor& src, const Tensor& dst,
                                      const memory::desc& weights, ConvDirection direction, const Tensor* residual) {
    const int64_t lanes = lanes_of(engine);
    const memory::dims taps = compat::dims_of(weights);
    if (lanes != 8 || d.algorithm != HBN_CONV_AUTO || leaves_to_library(engine, src) || d.groups != 1 || taps[2] * taps[3] > kMostTaps ||
        d.dilation_h != 1 || d.dilation_w != 1 || std::min(src.desc.c, dst.desc.c) < kFewestChannels ||
        dst.desc.n * dst.desc.h * dst.desc.w < kFewestPositions || !addressable(src, lanes) || !addressable(dst, lanes) ||
        (residual != nullptr && !addressable(*residual, lanes)) || !pays(d, taps, direction) || !weights_layout(weights)) {
        return std::nullopt;
    }
    const bool back = direction == ConvDirection::BackwardData;
    GatherPlan plan;
    GatherShape& s = plan.shape;
    take_sides(s, src, dst, direction);
    s.kernel_h = taps[2];
    s.kernel_w = taps[3];
    s.stride_h = d.stride_h;
    s.stride_w = d.stride_w;
    s.pad_top = d.pad_top;
    s.pad_left = d.pad_left;
    s.groups = s.parts = 1;
    s.threads = engine.threads;
    const int64_t step = lanes * 3 / 2, channels = round_up(s.src_channels, lanes), outputs = round_up(s.dst_channels, lanes);
    const int64_t terms = taps[2] * taps[3] * channels;
    int64_t gathered = terms;
    if (direction == ConvDirection::BackwardWeights) {
        const int64_t positions = s.images * s.dst_h * s.dst_w, sums = terms * outputs * 4;
        s.tile = std::min(kBackwardWeightsTile, round_up(positions, step));
        s.parts = std::clamp<int64_t>(std::min(positions / kPositionsPerPart, kSumsBytes / sums), 1, 16);
        // As many groups as the cache asks for, and enough for every thread to have as many as the others.
        s.groups = std::max<int64_t>(1, ceil_div(terms * s.tile * 4, kBackwardWeightsBytes));
        while (s.groups < terms / lanes && s.parts * s.groups % s.threads != 0) {
            s.groups++;
        }
        s.groups = std::min(s.groups, terms / lanes);
        gathered = round_up(ceil_div(terms, s.groups), lanes);
        plan.shared_bytes = s.parts * sums;
    } else {
        // Of backward-data a position sees the taps of its phase.
        gathered = back ? ceil_div(taps[2], d.stride_h) * ceil_div(taps[3], d.stride_w) * channels : terms;
        s.tile = std::clamp(kForwardBytes / (gathered * 4) / step * step, step, 16 * step);
        plan.shared_bytes = terms * outputs * 4;
    }
    // Rows must not fall on one another in the cache, as those of a power of two would.
    s.row = s.tile * lanes + 2 * lanes;
    s.own_floats = gathered / lanes * s.row + s.tile * 3 * lanes;
    plan.own_bytes = s.threads * s.own_floats * 4;
    plan.implementation = "gather:hbn:avx2";
    return plan;
}

Weights exchanged(Weights w) {
    return {w.data, w.block_c, w.outer_c, w.inner_c, w.block_o, w.outer_o, w.inner_o, w.row, w.column};
}

} // namespace hbn
