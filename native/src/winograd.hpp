// Our own Winograd convolution: for which convolutions it can be used, for which it is the faster, and how its work is cut.
#ifndef HBN_WINOGRAD_HPP
#define HBN_WINOGRAD_HPP

#include "tensor.hpp"

namespace hbn {

enum class ConvDirection { Forward, BackwardData, BackwardWeights };

// What a kernel needs to run it: pointers are still missing.
struct WinogradPlan {
    WinogradShape shape{};
    int64_t shared_bytes = 0, own_bytes = 0; // scratch: of all threads together
    std::string implementation;
};

// The plan of a convolution whose shapes were found to fit, or nothing where direct convolution must be used, or is estimated to be no
// slower (d.algorithm says whether that counts). src and dst are the convolution's, or their gradients.
std::optional<WinogradPlan> plan_winograd(const Engine& engine, const hbn_conv_desc& d, const Tensor& src, const Tensor& dst,
                                          const memory::desc& weights, ConvDirection direction, const Tensor* residual = nullptr);

// Where the elements of weights, float32, lie in this format, or nothing when a Winograd kernel cannot address them.
std::optional<Weights> weights_layout(const memory::desc& md, float* data = nullptr);

// Whole blocks of float32 or bfloat16 that nobody else's channels share, as our own convolutions address them; lanes of this engine's
// vectors, 0 where it has none of them.
bool addressable(const Tensor& t, int64_t lanes);
int64_t lanes_of(const Engine& e);

// bfloat16 that oneDNN multiplies itself: ours were not measured to be faster.
bool leaves_to_library(const Engine& engine, const Tensor& src);

// What both kinds of our own convolutions have of their shapes: backward-data is seen as a convolution of diffDst that gives diffSrc.
template <typename Shape> void take_sides(Shape& s, const Tensor& src, const Tensor& dst, ConvDirection direction) {
    const bool back = direction == ConvDirection::BackwardData;
    const hbn_tensor &from = back ? dst.desc : src.desc, &to = back ? src.desc : dst.desc;
    s.images = from.n;
    s.src_channels = from.c;
    s.src_h = from.h;
    s.src_w = from.w;
    s.dst_channels = to.c;
    s.dst_h = to.h;
    s.dst_w = to.w;
}

inline int64_t round_up(int64_t n, int64_t unit) {
    return (n + unit - 1) / unit * unit;
}

inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// The same memory seen from backward-data, which is a convolution of diffDst with filters turned by 180 degrees, inputs and outputs
// exchanged.
Weights turned(Weights w);

} // namespace hbn

#endif
