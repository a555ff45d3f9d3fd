// What surrounds the kernels of batch_norm.cu where a library computes in their place, and in the variants: one number per statistic each.

// cuDNN's own batch normalization keeps 1/sqrt(variance + epsilon) for its backward pass; the rest of the program speaks of variances.
HBN_KERNEL(variance_from_inverse)(const float* inverse, float* variance, int count, float epsilon) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    double deviation = 1.0 / static_cast<double>(inverse[i]), v = deviation * deviation - static_cast<double>(epsilon);
    variance[i] = v < 0 ? 0.0f : static_cast<float>(v); // below 0 by rounding; a NaN stays one
}

HBN_KERNEL(inverse_from_variance)(const float* variance, float* inverse, int count, float epsilon) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        inverse[i] = static_cast<float>(1.0 / sqrt(static_cast<double>(variance[i]) + static_cast<double>(epsilon)));
}

// Variants (ghost batches, batch renormalization) are the kernels above on groups of images, with corrected parameters; what follows works
// on one number per statistic.

// Where between 0 and 1 a limit is: 0 until `start`, then in a straight line to 1 at `end`.
HBN_DEVICE double ramp(i64 step, i64 start, i64 end) {
    return step < start ? 0.0 : step >= end ? 1.0 : static_cast<double>(step - start) / static_cast<double>(end - start);
}

HBN_DEVICE double clamp(double x, double low, double high) {
    return x < low ? low : x > high ? high : x; // a NaN stays one
}

// r and d of the statistics of this batch, from the running ones, which are updated afterwards.
HBN_KERNEL(batch_renormalize)
(const float* mean, const float* variance, float* running_mean, float* running_variance, float* r, float* d, int count, float epsilon,
 float factor, float unbiased, const StepState* state, float maximum_r, float maximum_d, i64 start, i64 end_r, i64 end_d) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    i64 step = static_cast<i64>(static_cast<u64>(state->step_high) << 32 | state->step_low);
    double most_r = 1 + (static_cast<double>(maximum_r) - 1) * ramp(step, start, end_r), most_d = maximum_d * ramp(step, start, end_d);
    double sigma = sqrt(static_cast<double>(running_variance[i]) + epsilon), of_deviation = 1, of_mean = 0;
    if (sigma != 0) {
        of_deviation = clamp(sqrt(static_cast<double>(variance[i]) + epsilon) / sigma, 1 / most_r, most_r);
        of_mean = clamp((static_cast<double>(mean[i]) - running_mean[i]) / sigma, -most_d, most_d);
    }
    r[i] = static_cast<float>(of_deviation);
    d[i] = static_cast<float>(of_mean);
    running_mean[i] = (1 - factor) * running_mean[i] + factor * mean[i];
    running_variance[i] = (1 - factor) * running_variance[i] + factor * (variance[i] * unbiased);
}

// What scale and shift become for the kernels above.
HBN_KERNEL(batch_norm_correct)
(const float* scale, const float* shift, const float* r, const float* d, float* corrected_scale, float* corrected_shift, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    corrected_scale[i] = scale[i] * r[i];
    corrected_shift[i] = shift[i] + scale[i] * d[i];
}

// The gradients of scale and shift from those that the kernels above gave for each group's corrected ones: in `groups` pairs of vectors.
HBN_KERNEL(batch_norm_combine)
(const float* parts, const float* r, const float* d, int groups, int count, float* diff_scale, float* diff_shift) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    double of_scale = 0, of_shift = 0;
    for (int g = 0; g < groups; ++g) {
        double part_scale = parts[(2 * g) * count + i], part_shift = parts[(2 * g + 1) * count + i];
        of_scale += r ? r[g * count + i] * part_scale + d[g * count + i] * part_shift : part_scale;
        of_shift += part_shift;
    }
    diff_scale[i] = static_cast<float>(of_scale);
    diff_shift[i] = static_cast<float>(of_shift);
}
