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

// Where the elements of weights lie in this format, or nothing when a Winograd kernel cannot address them.
std::optional<Weights> weights_layout(const memory::desc& md, float* data = nullptr);

// Whole blocks of float32 that nobody else's channels share, as our own convolutions address them; lanes of this engine's vectors, 0
// where it has none of them.
bool addressable(const Tensor& t, int64_t lanes);
int64_t lanes_of(const Engine& e);

// The same memory seen from backward-data, which is a convolution of diffDst with filters turned by 180 degrees, inputs and outputs
// exchanged.
Weights turned(Weights w);

} // namespace hbn

#endif
