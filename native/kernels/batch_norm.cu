// Batch normalization (Ioffe and Szegedy 2015, Algorithm 1 and the gradients after it).
//
// A statistic belongs to a column. Convolutional form: rows are all positions of all images, columns the channels. Per activation: the same
// for each position of an image by itself (blockIdx.z), with the images as rows; `positions` is 1 and the number of positions,
// respectively.
//
// Each direction takes two launches. The first reduces: a block owns blockDim.x * V columns and every gridDim.y-th group of blockDim.y
// rows; the last block of its columns to finish merges the blocks' partial sums in a fixed order. The second applies.

// Where a thread's columns of row `row` begin.
HBN_DEVICE u32 at(int row, int positions, u32 stride, int column) {
    return (static_cast<u32>(row) * positions + blockIdx.z) * stride + column;
}

HBN_DEVICE int first_row() {
    return blockIdx.y * blockDim.y + threadIdx.y;
}

HBN_DEVICE int row_step() {
    return gridDim.y * blockDim.y;
}

// Adds the threads' sums of each column over threadIdx.y and writes them to the block's partial sums. S sums per column.
template <int V, int S> HBN_DEVICE void write_partials(const float (&sums)[S][V], int columns, int column, float* partials) {
    int lane = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
#pragma unroll
    for (int s = 0; s < S; ++s) {
#pragma unroll
        for (int i = 0; i < V; ++i)
            hbn_shared[(s * V + i) * threads + lane] = sums[s][i];
    }
    __syncthreads();
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (threadIdx.y < half) {
#pragma unroll
            for (int k = 0; k < S * V; ++k)
                hbn_shared[k * threads + lane] += hbn_shared[k * threads + lane + half * blockDim.x];
        }
        __syncthreads();
    }
    if (threadIdx.y == 0 && column < columns) {
        partials += static_cast<u32>(blockIdx.z * gridDim.y + blockIdx.y) * S * columns + column;
#pragma unroll
        for (int s = 0; s < S; ++s) {
#pragma unroll
            for (int i = 0; i < V; ++i)
                partials[s * columns + i] = hbn_shared[(s * V + i) * threads + threadIdx.x];
        }
    }
}

// A column that a thread finishes, and the column's sums over all blocks.
template <int S> struct Total {
    int column;
    double sums[S];
};

// Adds up the blocks' partial sums of a block's columns: the threads along y share the blocks, and each adds its own in order. Shared
// memory has 2 * S * V floats per thread.
template <int V, int S> HBN_DEVICE void merge_partials(const float* partials, int columns, int column) {
    int lane = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    double sums[S][V] = {};
    if (column < columns) {
        partials += static_cast<u32>(blockIdx.z * gridDim.y) * S * columns + column;
        for (int block = threadIdx.y; block < gridDim.y; block += blockDim.y) {
#pragma unroll
            for (int s = 0; s < S; ++s) {
#pragma unroll
                for (int i = 0; i < V; ++i)
                    sums[s][i] += partials[(block * S + s) * columns + i];
            }
        }
    }
    double* shared = reinterpret_cast<double*>(hbn_shared);
#pragma unroll
    for (int s = 0; s < S; ++s) {
#pragma unroll
        for (int i = 0; i < V; ++i)
            shared[(s * V + i) * threads + lane] = sums[s][i];
    }
    __syncthreads();
}

// After merge_partials: the next column that this thread finishes, with what the threads along y have added up, in their order. `next`
// counts a thread's columns and is 0 first; false when none is left.
template <int V, int S> HBN_DEVICE bool next_total(Total<S>& total, int& next, int columns) {
    int threads = blockDim.x * blockDim.y, index = threadIdx.y * blockDim.x + threadIdx.x + next * threads;
    if (index >= blockDim.x * V)
        return false;
    int i = index / blockDim.x, x = index - i * blockDim.x;
    total.column = (blockIdx.x * blockDim.x + x) * V + i;
    if (total.column >= columns)
        return false;
    const double* shared = reinterpret_cast<const double*>(hbn_shared);
#pragma unroll
    for (int s = 0; s < S; ++s) {
        total.sums[s] = 0;
        for (int y = 0; y < blockDim.y; ++y)
            total.sums[s] += shared[(s * V + i) * threads + y * blockDim.x + x];
    }
    ++next;
    return true;
}

// Sums of x - x0 and (x - x0)^2, x0 the column's first value: without it E[x^2] - E[x]^2 would lose all digits where the mean is large.
template <int V>
HBN_DEVICE void batch_norm_statistics(const elem* src, u32 stride, int columns, int positions, int rows, float* partials, u32* counters,
                                      float* mean, float* variance, float* running_mean, float* running_variance, float factor,
                                      float unbiased) {
    int column = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    float sums[2][V] = {};
    if (column < columns) {
        float first[V], x[V];
        load(first, src + at(0, positions, stride, column));
#pragma unroll 4
        for (int row = first_row(); row < rows; row += row_step()) {
            load(x, src + at(row, positions, stride, column));
#pragma unroll
            for (int i = 0; i < V; ++i) {
                float d = x[i] - first[i];
                sums[0][i] += d;
                sums[1][i] += d * d;
            }
        }
    }
    write_partials(sums, columns, column, partials);
    if (!is_last_block(counters + blockIdx.x, gridDim.y))
        return;

    merge_partials<V, 2>(partials, columns, column);
    Total<2> total;
    for (int next = 0; next_total<V>(total, next, columns);) {
        int j = total.column;
        double m = rows, d = total.sums[0] / m, v = total.sums[1] / m - d * d;
        float mu = static_cast<float>(widen(src[at(0, positions, stride, j)]) + d);
        float var = v < 0 ? 0.0f : static_cast<float>(v); // below 0 by rounding; a NaN stays one
        int k = blockIdx.z * columns + j;
        mean[k] = mu;
        variance[k] = var;
        if (running_mean) {
            running_mean[k] = (1 - factor) * running_mean[k] + factor * mu;
            running_variance[k] = (1 - factor) * running_variance[k] + factor * (var * unbiased);
        }
    }
}

// What normalization needs of a thread's columns. The gain scale / sqrt(variance + epsilon) is applied to x - mean: folding the mean into
// the shift would round at the magnitude of mean * gain.
template <int V> struct Normalizer { float mean[V], inverse[V], gain[V], shift[V]; };

template <int V>
HBN_DEVICE void read(Normalizer<V>& n, const float* mean, const float* variance, const float* scale, const float* shift, float epsilon,
                     int column, int columns) {
    int k = blockIdx.z * columns + column;
    load_parameters(n.mean, mean + k);
    load_parameters(n.shift, shift + k);
    load_parameters(n.gain, scale + k);
    load_parameters(n.inverse, variance + k);
#pragma unroll
    for (int i = 0; i < V; ++i) {
        float square = n.inverse[i] + epsilon;
        n.inverse[i] = square == 0 ? 0.0f : 1.0f / sqrtf(square); // no spread and no epsilon: the limit for equal values
        n.gain[i] *= n.inverse[i];
    }
}

// The same expression forward and backward: the backward pass finds ReLU's mask by it.
template <int V> HBN_DEVICE float normalize(const Normalizer<V>& n, float x, int i) {
    return fmaf(x - n.mean[i], n.gain[i], n.shift[i]);
}

template <int V>
HBN_DEVICE void batch_norm_apply(const elem* src, u32 src_stride, const elem* residual, u32 residual_stride, elem* dst, u32 dst_stride,
                                 int columns, int positions, int rows, const float* mean, const float* variance, const float* scale,
                                 const float* shift, float epsilon, int relu) {
    int column = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (column >= columns)
        return;
    Normalizer<V> n;
    read(n, mean, variance, scale, shift, epsilon, column, columns);
    for (int row = first_row(); row < rows; row += row_step()) {
        float x[V], y[V];
        load(x, src + at(row, positions, src_stride, column));
#pragma unroll
        for (int i = 0; i < V; ++i)
            y[i] = normalize(n, x[i], i);
        if (residual) {
            load(x, residual + at(row, positions, residual_stride, column));
#pragma unroll
            for (int i = 0; i < V; ++i)
                y[i] += x[i];
        }
        if (relu) {
#pragma unroll
            for (int i = 0; i < V; ++i)
                y[i] = y[i] > 0 ? y[i] : y[i] <= 0 ? 0.0f : y[i]; // a NaN stays one, so that divergence shows
        }
        store(dst + at(row, positions, dst_stride, column), y);
    }
}

// The gradient that passes ReLU: where dst is positive (or NaN), as it was kept or as it follows from src.
template <int V>
HBN_DEVICE void masked_gradient(float (&g)[V], const float (&x)[V], const Normalizer<V>& n, const elem* diff_dst, const elem* second,
                                const elem* dst, int relu) {
    load(g, diff_dst);
    if (second) {
        float more[V];
        load(more, second);
#pragma unroll
        for (int i = 0; i < V; ++i)
            g[i] = widen(narrow(g[i] + more[i]));
    }
    if (!relu)
        return;
    float y[V];
    if (dst) {
        load(y, dst);
    } else {
#pragma unroll
        for (int i = 0; i < V; ++i)
            y[i] = normalize(n, x[i], i);
    }
#pragma unroll
    for (int i = 0; i < V; ++i)
        g[i] = y[i] <= 0 ? 0.0f : g[i];
}

template <int V>
HBN_DEVICE void batch_norm_gradient_sums(const elem* src, u32 src_stride, const elem* dst, u32 dst_stride, const elem* diff_dst,
                                         u32 diff_dst_stride, const elem* second, u32 second_stride, int columns, int positions, int rows,
                                         const float* mean, const float* variance, const float* scale, const float* shift, float epsilon,
                                         int relu, float* partials, u32* counters, float* diff_scale, float* diff_shift) {
    int column = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    float sums[2][V] = {};
    if (column < columns) {
        Normalizer<V> n;
        read(n, mean, variance, scale, shift, epsilon, column, columns);
#pragma unroll 2
        for (int row = first_row(); row < rows; row += row_step()) {
            float x[V], g[V];
            load(x, src + at(row, positions, src_stride, column));
            masked_gradient(g, x, n, diff_dst + at(row, positions, diff_dst_stride, column),
                            second ? second + at(row, positions, second_stride, column) : second,
                            dst ? dst + at(row, positions, dst_stride, column) : dst, relu);
#pragma unroll
            for (int i = 0; i < V; ++i) {
                sums[0][i] += g[i];
                sums[1][i] += g[i] * ((x[i] - n.mean[i]) * n.inverse[i]);
            }
        }
    }
    write_partials(sums, columns, column, partials);
    if (!is_last_block(counters + blockIdx.x, gridDim.y))
        return;

    merge_partials<V, 2>(partials, columns, column);
    Total<2> total;
    for (int next = 0; next_total<V>(total, next, columns);) {
        diff_shift[blockIdx.z * columns + total.column] = static_cast<float>(total.sums[0]);
        diff_scale[blockIdx.z * columns + total.column] = static_cast<float>(total.sums[1]);
    }
}

// diffSrc = gain * (g - sum(g)/m - xhat * sum(g * xhat)/m), and gain * g where the statistics are constants (batch == 0). diffSrc may be
// src or diffDst: a thread reads an element before it writes it, and no other thread touches it.
template <int V>
HBN_DEVICE void batch_norm_gradient(const elem* src, u32 src_stride, const elem* dst, u32 dst_stride, const elem* diff_dst,
                                    u32 diff_dst_stride, const elem* second, u32 second_stride, elem* diff_src, u32 diff_src_stride,
                                    elem* diff_residual, u32 diff_residual_stride, int columns, int positions, int rows, const float* mean,
                                    const float* variance, const float* scale, const float* shift, float epsilon, int relu, int batch,
                                    const float* diff_scale, const float* diff_shift) {
    int column = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (column >= columns)
        return;
    Normalizer<V> n;
    read(n, mean, variance, scale, shift, epsilon, column, columns);
    float mean_g[V] = {}, mean_gx[V] = {};
    if (batch) {
        load_parameters(mean_g, diff_shift + blockIdx.z * columns + column);
        load_parameters(mean_gx, diff_scale + blockIdx.z * columns + column);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            mean_g[i] /= static_cast<float>(rows);
            mean_gx[i] /= static_cast<float>(rows);
        }
    }
    for (int row = first_row(); row < rows; row += row_step()) {
        float x[V], g[V], dx[V];
        load(x, src + at(row, positions, src_stride, column));
        masked_gradient(g, x, n, diff_dst + at(row, positions, diff_dst_stride, column),
                        second ? second + at(row, positions, second_stride, column) : second,
                        dst ? dst + at(row, positions, dst_stride, column) : dst, relu);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            float xhat = (x[i] - n.mean[i]) * n.inverse[i];
            dx[i] = n.gain[i] * (g[i] - mean_g[i] - xhat * mean_gx[i]);
        }
        store(diff_src + at(row, positions, diff_src_stride, column), dx);
        if (diff_residual)
            store(diff_residual + at(row, positions, diff_residual_stride, column), g);
    }
}

// sums[j] = sum of column j over all rows: the gradient of a bias.
template <int V>
HBN_DEVICE void column_sums(const elem* src, u32 stride, int columns, int rows, float* partials, u32* counters, float* sums_out) {
    int column = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    float sums[1][V] = {};
    if (column < columns) {
#pragma unroll 4
        for (int row = first_row(); row < rows; row += row_step()) {
            float x[V];
            load(x, src + at(row, 1, stride, column));
#pragma unroll
            for (int i = 0; i < V; ++i)
                sums[0][i] += x[i];
        }
    }
    write_partials(sums, columns, column, partials);
    if (!is_last_block(counters + blockIdx.x, gridDim.y))
        return;

    merge_partials<V, 1>(partials, columns, column);
    Total<1> total;
    for (int next = 0; next_total<V>(total, next, columns);)
        sums_out[total.column] = static_cast<float>(total.sums[0]);
}

// Each kernel twice: HBN_WIDTH channels per thread where their number and all strides allow it, else one.
#define HBN_BATCH_NORM(suffix, V)                                                                                                          \
    HBN_KERNEL(batch_norm_statistics_##suffix)                                                                                             \
    (const elem* src, u32 stride, int columns, int positions, int rows, float* partials, u32* counters, float* mean, float* variance,      \
     float* running_mean, float* running_variance, float factor, float unbiased) {                                                         \
        batch_norm_statistics<V>(src, stride, columns, positions, rows, partials, counters, mean, variance, running_mean,                  \
                                 running_variance, factor, unbiased);                                                                      \
    }                                                                                                                                      \
    HBN_KERNEL(batch_norm_apply_##suffix)                                                                                                  \
    (const elem* src, u32 src_stride, const elem* residual, u32 residual_stride, elem* dst, u32 dst_stride, int columns, int positions,    \
     int rows, const float* mean, const float* variance, const float* scale, const float* shift, float epsilon, int relu) {                \
        batch_norm_apply<V>(src, src_stride, residual, residual_stride, dst, dst_stride, columns, positions, rows, mean, variance, scale,  \
                            shift, epsilon, relu);                                                                                         \
    }                                                                                                                                      \
    HBN_KERNEL(batch_norm_gradient_sums_##suffix)                                                                                          \
    (const elem* src, u32 src_stride, const elem* dst, u32 dst_stride, const elem* diff_dst, u32 diff_dst_stride, const elem* second,      \
     u32 second_stride, int columns, int positions, int rows, const float* mean, const float* variance, const float* scale,                \
     const float* shift, float epsilon, int relu, float* partials, u32* counters, float* diff_scale, float* diff_shift) {                  \
        batch_norm_gradient_sums<V>(src, src_stride, dst, dst_stride, diff_dst, diff_dst_stride, second, second_stride, columns,           \
                                    positions, rows, mean, variance, scale, shift, epsilon, relu, partials, counters, diff_scale,          \
                                    diff_shift);                                                                                           \
    }                                                                                                                                      \
    HBN_KERNEL(batch_norm_gradient_##suffix)                                                                                               \
    (const elem* src, u32 src_stride, const elem* dst, u32 dst_stride, const elem* diff_dst, u32 diff_dst_stride, const elem* second,      \
     u32 second_stride, elem* diff_src, u32 diff_src_stride, elem* diff_residual, u32 diff_residual_stride, int columns, int positions,    \
     int rows, const float* mean, const float* variance, const float* scale, const float* shift, float epsilon, int relu, int batch,       \
     const float* diff_scale, const float* diff_shift) {                                                                                   \
        batch_norm_gradient<V>(src, src_stride, dst, dst_stride, diff_dst, diff_dst_stride, second, second_stride, diff_src,               \
                               diff_src_stride, diff_residual, diff_residual_stride, columns, positions, rows, mean, variance, scale,      \
                               shift, epsilon, relu, batch, diff_scale, diff_shift);                                                       \
    }                                                                                                                                      \
    HBN_KERNEL(column_sums_##suffix)                                                                                                       \
    (const elem* src, u32 stride, int columns, int rows, float* partials, u32* counters, float* sums) {                                    \
        column_sums<V>(src, stride, columns, rows, partials, counters, sums);                                                              \
    }

HBN_BATCH_NORM(wide, HBN_WIDTH)
HBN_BATCH_NORM(single, 1)

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
