#include "kernels.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <math.h>
#include <omp.h>
#include <string.h>

namespace hbn {
namespace {

#include "simd.inl"

#include "batch_norm.inl"
#include "batch_norm_positions.inl"
#include "elementwise.inl"
#include "pooling.inl"
#include "select.inl"
#include "training.inl"
#include "winograd.inl"
#include "winograd_weights.inl"

#include "gather.inl"

} // namespace

#define HBN_JOIN2(a, b) a##b
#define HBN_JOIN(a, b) HBN_JOIN2(a, b)

extern const Arithmetic HBN_JOIN(arithmetic_, HBN_ISA) = {batch_norm_forward,
                                                          batch_norm_backward,
                                                          batch_norm_affine,
                                                          batch_norm_mask,
                                                          copy,
                                                          sum,
                                                          zero_padding,
                                                          select,
                                                          dropout,
                                                          input,
                                                          pool_forward,
                                                          pool_backward,
                                                          loss,
                                                          sgd,
                                                          adam,
                                                          sum_of_squares,
                                                          accumulate,
                                                          average,
                                                          clear,
                                                          winograd_forward,
                                                          winograd_backward_weights,
                                                          gather_forward,
                                                          gather_backward_weights};

} // namespace hbn
