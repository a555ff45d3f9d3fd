// Our own direct convolution: for which convolutions it is the faster, and how its work is cut.
#ifndef HBN_GATHER_HPP
#define HBN_GATHER_HPP

#include "winograd.hpp"

namespace hbn {

// What a kernel needs to run it: pointers are still missing.
struct GatherPlan {
    GatherShape shape{};
    int64_t shared_bytes = 0, own_bytes = 0; // scratch: of all threads together
    std::string implementation;
};

// The plan of a convolution whose shapes were found to fit and for which Winograd was not taken, or nothing where the library's is no
// slower.
std::optional<GatherPlan> plan_gather(const Engine& engine, const hbn_conv_desc& d, const Tensor& src, const Tensor& dst,
                                      const memory::desc& weights, ConvDirection direction, const Tensor* residual = nullptr);

// Weights with inputs and outputs exchanged.
Weights exchanged(Weights w);

} // namespace hbn

#endif
