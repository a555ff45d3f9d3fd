// The program's kernels for one element type, as the host compiles them, by name.
#include "emulator.hpp"

#define HBN_CONCAT_(a, b) a##b
#define HBN_CONCAT(a, b) HBN_CONCAT_(a, b)

namespace {

#include "../../kernels/prelude.cuh"

#include "../../kernels/batch_norm.cu"
#include "../../kernels/batch_norm_variants.cu"
#include "../../kernels/convolution.cu"
#include "../../kernels/elementwise.cu"
#include "../../kernels/pooling.cu"
#include "../../kernels/probe.cu"
#include "../../kernels/training.cu"

struct Entry {
    const char* name;
    emulator::Prepare prepare;
};

#define ENTRY(kernel)                                                                                                                      \
    {                                                                                                                                      \
#kernel, [](void** parameters) { return emulator::bind_kernel(kernel, parameters); }                                               \
    }
#define ENTRIES(kernel) ENTRY(kernel##_wide), ENTRY(kernel##_single)

const Entry entries[] = {
    ENTRY(set_step),
    ENTRIES(batch_norm_statistics),
    ENTRIES(batch_norm_apply),
    ENTRIES(batch_norm_forward),
    ENTRIES(batch_norm_gradient_sums),
    ENTRIES(batch_norm_gradient),
    ENTRIES(batch_norm_backward),
    ENTRIES(column_sums),
    ENTRY(variance_from_inverse),
    ENTRY(inverse_from_variance),
    ENTRY(batch_renormalize),
    ENTRY(batch_norm_correct),
    ENTRY(batch_norm_combine),
    ENTRIES(activation_forward),
    ENTRIES(activation_backward),
    ENTRIES(sum),
    ENTRIES(copy),
    ENTRIES(add_bias),
    ENTRY(copy_to_float),
    ENTRY(copy_from_float),
    ENTRY(add_bias_float),
    ENTRY(prepare_input),
    ENTRY(pad_channels),
    ENTRY(dropout),
    ENTRY(lrn_forward),
    ENTRY(lrn_backward),
    ENTRIES(pooling_forward),
    ENTRY(pooling_forward_large),
    ENTRIES(pooling_backward),
    ENTRY(pooling_backward_large),
    ENTRY(global_average),
    ENTRY(convolution_forward),
    ENTRY(convolution_backward_data),
    ENTRY(convolution_backward_weights),
    ENTRY(inner_product_to_float),
    ENTRY(softmax_cross_entropy),
    ENTRY(softmax),
    ENTRY(sgd),
    ENTRY(adam),
    ENTRY(accumulate),
    ENTRY(average),
    ENTRY(convert),
    ENTRY(clip),
    ENTRY(update_loss_scale),
    ENTRY(probe_multiply_add),
    ENTRY(probe_copy),
#if HBN_ELEMENT != 0
    ENTRY(probe_tensor_core),
#endif
};

} // namespace

emulator::Prepare HBN_CONCAT(hbn_find_, HBN_ELEMENT)(const char* name) {
    for (const Entry& entry : entries) {
        if (std::strcmp(entry.name, name) == 0)
            return entry.prepare;
    }
    return nullptr;
}
