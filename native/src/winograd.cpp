#include "winograd.hpp"

#include <algorithm>

namespace hbn {

namespace {

// What the rule below counts in: multiply-adds at full speed, per channel (and tile). Measured on Zen 3 (bench/results), where they are
// bound by instructions as multiply-adds are, so that they carry over to other processors and widths.
constexpr double kSrcTransform = 850, kDstTransform = 400; // a tile of one channel
constexpr double kWeightsTransform = 1200;                 // the 36 points of one filter, or of its gradient, and their way through memory
constexpr double kCachedWeightsTransform = 300;            // the same of filters side by side, where the points stay in a core's cache
constexpr double kFilterRead = 1;                          // a transformed value that a block of tiles reads again, or adds to
// Of its peak, direct convolution is granted more than it was seen to reach (53 to 88 %): a near miss leaves it in place.
constexpr double kDirect = 0.85, kDirectBackwardWeights = 0.7;

constexpr int64_t kPoints = 36;
// Transformed src of a block of tiles, where few tiles do (forward) and where many are summed at a time: what a core's second-level cache
// holds most of. The sums of backward-weights, all parts of them.
constexpr int64_t kForwardBytes = int64_t{384} << 10, kBackwardWeightsBytes = int64_t{640} << 10, kSumsBytes = int64_t{16} << 20;
// Filters that a thread transforms at a time where it multiplies few tiles with them; more tiles than this are not few.
constexpr int64_t kFilterBytes = int64_t{128} << 10, kFewTiles = 64;
// A sum over more tiles than this is cut into parts, for threads to share and for its rounding.
constexpr int64_t kTilesPerPart = 512;

int64_t tiles_of(const WinogradShape& s) {
    return s.images * ceil_div(s.dst_h, 4) * ceil_div(s.dst_w, 4);
}

// Cuts forward and backward-data into panels of filters, which threads take in turns while the tiles are transformed once. Returns the cost
// of the busiest thread.
double cost_by_panels(const WinogradShape& s, int64_t lanes, bool adjacent) {
    const int64_t tiles = tiles_of(s), src = round_up(s.src_channels, lanes), panels = ceil_div(s.dst_channels, 3 * lanes);
    const double wide = std::min<double>(ceil_div(panels, s.threads) * 3 * lanes, round_up(s.dst_channels, lanes));
    return tiles * src * kSrcTransform / s.threads + wide * src * (adjacent ? kCachedWeightsTransform : kWeightsTransform) +
           wide * (round_up(tiles, lanes / 2) * kPoints * src + tiles * kDstTransform);
}

// Cuts forward and backward-data into blocks of tiles times groups of output channels, which threads take in turns; a group transforms
// its tiles of src for itself. Returns the cost of the busiest thread.
double cut_by_tiles(WinogradShape& s, int64_t lanes) {
    const int64_t tiles = tiles_of(s), src = round_up(s.src_channels, lanes), dst = round_up(s.dst_channels, lanes), step = lanes * 3 / 2;
    const int64_t most = std::max(step, kForwardBytes / (kPoints * src * 4) / step * step), panels = ceil_div(dst, 3 * lanes);
    double best = 0;
    for (int64_t groups = 1; groups <= std::min<int64_t>(panels, 2 * s.threads); groups++) {
        for (int64_t block = step; block <= std::min(most, round_up(tiles, step)); block += step) {
            const int64_t units = groups * ceil_div(tiles, block), turns = ceil_div(units, s.threads);
            const double wide = static_cast<double>(ceil_div(panels, groups)) / panels * dst;
            const double unit = block * (src * kSrcTransform + wide * (kDstTransform + kPoints * src)) + kFilterRead * kPoints * src * wide;
            if (best == 0 || turns * unit < best) {
                best = turns * unit;
                s.dst_groups = groups;
                s.tiles = block;
            }
        }
    }
    return best + kWeightsTransform * src * dst / s.threads;
}

double cut_forward(WinogradShape& s, int64_t lanes, bool adjacent) {
    const double by_tiles = cut_by_tiles(s, lanes), by_panels = cost_by_panels(s, lanes, adjacent);
    if (tiles_of(s) > kFewTiles || by_panels >= by_tiles) {
        return by_tiles;
    }
    s.tiles = round_up(tiles_of(s), lanes * 3 / 2);
    s.filter_blocks = std::clamp<int64_t>(kFilterBytes / (kPoints * 3 * lanes * lanes * 4), 1, ceil_div(s.src_channels, lanes));
    return by_panels;
}

// Cuts backward-weights into parts of the sum times rectangles of channels. The parts follow from the shape alone: the result depends on
// them.
double cut_backward_weights(WinogradShape& s, int64_t lanes) {
    const int64_t tiles = tiles_of(s), src = round_up(s.src_channels, lanes), dst = round_up(s.dst_channels, lanes);
    const int64_t sums = kPoints * src * dst * 4, panels = ceil_div(dst, 3 * lanes), step = lanes * 3 / 2;
    s.parts = std::clamp<int64_t>(std::min(tiles / kTilesPerPart, kSumsBytes / sums), 1, 16);
    double best = 0;
    for (int64_t src_groups = 1; src_groups <= std::min<int64_t>(src / lanes, 2 * s.threads); src_groups++) {
        for (int64_t dst_groups = 1; dst_groups <= std::min<int64_t>(panels, 2 * s.threads); dst_groups++) {
            const int64_t turns = ceil_div(s.parts * src_groups * dst_groups, s.threads), high = round_up(ceil_div(src, src_groups), lanes);
            const double wide = static_cast<double>(ceil_div(panels, dst_groups)) / panels * dst;
            const int64_t most = kBackwardWeightsBytes / (kPoints * high * 4) / step * step;
            const int64_t block = std::clamp<int64_t>(most, step, round_up(ceil_div(tiles, s.parts), step));
            const double tile = high * kSrcTransform + wide * kDstTransform + kPoints * high * wide * (1 + 2 * kFilterRead / block);
            const double cost = turns * tile * ceil_div(tiles, s.parts);
            if (best == 0 || cost < best) {
                best = cost;
                s.src_groups = src_groups;
                s.dst_groups = dst_groups;
                s.tiles = block;
            }
        }
    }
    return best + kWeightsTransform * s.parts * src * dst / s.threads;
}

} // namespace

int64_t lanes_of(const Engine& e) {
    return e.arithmetic->winograd_forward == nullptr ? 0 : e.isa == HBN_ISA_AVX512 ? 16 : 8;
}

bool addressable(const Tensor& t, int64_t lanes) {
    if (!t.present() || (t.desc.data_type != HBN_FLOAT32 && t.desc.data_type != HBN_BFLOAT16) || t.desc.layout != HBN_BLOCKED ||
        t.block != lanes) {
        return false;
    }
    const View v = t.view(nullptr);
    return v.lane == 0 && (t.desc.c % lanes == 0 || v.owns_padding);
}

bool leaves_to_library(const Engine& engine, const Tensor& src) {
    return src.desc.data_type == HBN_BFLOAT16 && !engine.widens_bf16;
}

std::optional<WinogradPlan> plan_winograd(const Engine& engine, const hbn_conv_desc& d, const Tensor& src, const Tensor& dst,
                                          const memory::desc& weights, ConvDirection direction, const Tensor* residual) {
    const int64_t lanes = lanes_of(engine);
    const memory::dims taps = compat::dims_of(weights);
    if (lanes == 0 || d.algorithm == HBN_CONV_DIRECT || d.groups != 1 || taps[2] != 3 || taps[3] != 3 || d.stride_h != 1 ||
        d.stride_w != 1 || d.dilation_h != 1 || d.dilation_w != 1 || std::max({d.pad_top, d.pad_left, d.pad_bottom, d.pad_right}) > 2 ||
        !addressable(src, lanes) || !addressable(dst, lanes) || (residual != nullptr && !addressable(*residual, lanes)) ||
        (d.algorithm == HBN_CONV_AUTO && leaves_to_library(engine, src))) {
        return std::nullopt;
    }
    const std::optional<Weights> w = weights_layout(weights);
    if (!w) {
        return std::nullopt;
    }
    const bool back = direction == ConvDirection::BackwardData, adjacent = !back && w->inner_o == 1 && w->block_o % lanes == 0;
    WinogradPlan plan;
    WinogradShape& s = plan.shape;
    take_sides(s, src, dst, direction);
    s.pad_top = back ? 2 - d.pad_top : d.pad_top;
    s.pad_left = back ? 2 - d.pad_left : d.pad_left;
    s.src_groups = s.dst_groups = s.parts = 1;
    const bool backward_weights = direction == ConvDirection::BackwardWeights;
    const auto cut = [&](WinogradShape& shape, int32_t threads) {
        shape.threads = threads;
        return backward_weights ? cut_backward_weights(shape, lanes) : cut_forward(shape, lanes, adjacent);
    };
    // Which algorithm it is must not depend on the number of threads, or the bits would: one thread decides.
    WinogradShape alone = s;
    const double direct = 9.0 * s.images * dst.desc.h * dst.desc.w * round_up(s.src_channels, lanes) * round_up(s.dst_channels, lanes) /
                          (backward_weights ? kDirectBackwardWeights : kDirect);
    if (d.algorithm == HBN_CONV_AUTO && cut(alone, 1) >= direct) {
        return std::nullopt;
    }
    cut(s, engine.threads);
    const int64_t channels = round_up(s.src_channels, lanes),
                  own = backward_weights ? round_up(ceil_div(channels, s.src_groups), lanes) : channels;
    // The rows of 36 points must not fall on one another in the cache, as those of a power of two would.
    s.src_row = s.tiles * own + 3 * lanes;
    s.dst_row = s.tiles * 3 * lanes + 3 * lanes;
    s.filter_gap = backward_weights ? 0 : 3 * lanes;
    const int64_t panels = ceil_div(s.dst_channels, 2 * lanes), // at most
        filters = channels * round_up(s.dst_channels, lanes) + panels * s.filter_gap;
    s.own_floats = kPoints * (s.dst_row + (s.filter_blocks > 0 ? s.filter_blocks * 3 * lanes * lanes + s.filter_gap : s.src_row));
    plan.shared_bytes = kPoints * (s.filter_blocks > 0 ? s.src_row : s.parts * filters) * 4;
    plan.own_bytes = s.threads * s.own_floats * 4;
    plan.implementation = lanes == 16 ? "winograd:hbn:avx512" : "winograd:hbn:avx2";
    return plan;
}

std::optional<Weights> weights_layout(const memory::desc& md, float* data) {
    const compat::Blocking b = compat::blocking_of(md);
    if (!b.known || b.sizes.size() != 4) {
        return std::nullopt;
    }
    Weights w{data, 1, b.strides[0], 0, 1, b.strides[1], 0, b.strides[2], b.strides[3]};
    int64_t stride = 1;
    for (size_t i = b.inner_blocks.size(); i-- > 0;) {
        int64_t* of_axis = b.inner_axes[i] == 0 ? &w.block_o : b.inner_axes[i] == 1 ? &w.block_c : nullptr;
        if (of_axis == nullptr || *of_axis != 1) {
            return std::nullopt;
        }
        *of_axis = b.inner_blocks[i];
        (b.inner_axes[i] == 0 ? w.inner_o : w.inner_c) = stride;
        stride *= b.inner_blocks[i];
    }
    return w;
}

Weights turned(Weights w) {
    return {w.data + 2 * w.row + 2 * w.column, w.block_c, w.outer_c, w.inner_c, w.block_o, w.outer_o, w.inner_o, -w.row, -w.column};
}

} // namespace hbn
