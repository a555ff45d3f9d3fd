// Batch normalization (Ioffe and Szegedy 2015, Algorithm 1 and the gradients after it).
//
// A statistic belongs to a column. Convolutional form: rows are all positions of all images, columns the channels. Per activation: the same
// for each position of an image by itself (blockIdx.z), with the images as rows; `positions` is 1 and the number of positions,
// respectively.
//
// Each direction reduces, then applies. A block owns blockDim.x * V columns and every gridDim.y-th group of blockDim.y rows; the last block
// of its columns to finish merges the blocks' partial sums in a fixed order. In two launches the second applies; in one the other blocks
// wait for the last and then apply: the same sums, so the same bits.

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
// True in the block that has merged the sums of its columns.
template <int V>
HBN_DEVICE bool batch_norm_statistics(const elem* src, u32 stride, int columns, int positions, int rows, float* partials, u32* counters,
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
        return false;

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
    return true;
}

// What normalization needs of a thread's columns. The gain scale / sqrt(variance + epsilon) is applied to x - mean: folding the mean into
// the shift would round at the magnitude of mean * gain.
template <int V> struct Normalizer { float mean[V], inverse[V], gain[V], shift[V]; };

// 1 / sqrt(variance + epsilon).
HBN_DEVICE float inverse_deviation(float variance, float epsilon) {
    float square = variance + epsilon;
    return square == 0 ? 0.0f : 1.0f / sqrtf(square); // no spread and no epsilon: the limit for equal values
}

// Numbers of a block's columns in shared memory, `of` the n-th kind of them: lanes that are neighbours find theirs side by side.
template <int V> HBN_DEVICE float* of_columns(int n) {
    return hbn_shared + n * V * blockDim.x;
}

// Calls each(k, at) for the block's columns, each by one of its threads: k is the column's statistic, `at` its place in of_columns().
#define HBN_FOR_COLUMNS(V, columns, k, at)                                                                                                 \
    for (int hbn_j = threadIdx.y * blockDim.x + threadIdx.x; hbn_j < blockDim.x * (V); hbn_j += blockDim.x * blockDim.y)                   \
        for (int k = blockIdx.z * (columns) + blockIdx.x * blockDim.x * (V) + hbn_j, at = hbn_j % (V)*blockDim.x + hbn_j / (V),            \
                 hbn_here = blockIdx.x * blockDim.x * (V) + hbn_j < (columns);                                                             \
             hbn_here; hbn_here = 0)

template <int V> HBN_DEVICE void load_columns(float (&out)[V], int n) {
    const float* from = of_columns<V>(n) + threadIdx.x;
#pragma unroll
    for (int i = 0; i < V; ++i)
        out[i] = from[i * blockDim.x];
}

// The root and the division once per column and block, not in each of the threads that share it: a block's rows are few, and there would
// be as many divisions as elements. By all threads of the block; shared memory has four floats per column.
template <int V>
HBN_DEVICE void read(Normalizer<V>& n, const float* mean, const float* variance, const float* scale, const float* shift, float epsilon,
                     int columns) {
    HBN_FOR_COLUMNS(V, columns, k, at) {
        float inverse = inverse_deviation(variance[k], epsilon);
        of_columns<V>(0)[at] = mean[k];
        of_columns<V>(1)[at] = inverse;
        of_columns<V>(2)[at] = scale[k] * inverse;
        of_columns<V>(3)[at] = shift[k];
    }
    __syncthreads();
    load_columns(n.mean, 0);
    load_columns(n.inverse, 1);
    load_columns(n.gain, 2);
    load_columns(n.shift, 3);
    __syncthreads(); // partial sums may take the place
}

// The same expression forward and backward: the backward pass finds ReLU's mask by it.
template <int V> HBN_DEVICE float normalize(const Normalizer<V>& n, float x, int i) {
    return fmaf(x - n.mean[i], n.gain[i], n.shift[i]);
}

// Rows that a thread reads before it writes the first of them. A compiler may not do so by itself, as dst may be src.
#define HBN_ROWS 2

template <int V>
HBN_DEVICE void batch_norm_apply(const elem* src, u32 src_stride, const elem* residual, u32 residual_stride, elem* dst, u32 dst_stride,
                                 int columns, int positions, int rows, const float* mean, const float* variance, const float* scale,
                                 const float* shift, float epsilon, int relu) {
    int column = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    Normalizer<V> n;
    read(n, mean, variance, scale, shift, epsilon, columns);
    if (column >= columns)
        return;
    for (int first = first_row(); first < rows; first += HBN_ROWS * row_step()) {
        Pack<V> xs[HBN_ROWS];
#pragma unroll
        for (int u = 0; u < HBN_ROWS; ++u) {
            if (first + u * row_step() < rows)
                xs[u] = load_pack<V>(src + at(first + u * row_step(), positions, src_stride, column));
        }
#pragma unroll
        for (int u = 0; u < HBN_ROWS; ++u) {
            int row = first + u * row_step();
            if (row >= rows)
                break;
            float x[V], y[V];
            widen(x, xs[u]);
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
}

// Statistics and what they are for in one launch. dst may be src: what a block writes only its own threads read after the barrier.
template <int V>
HBN_DEVICE void batch_norm_forward(const elem* src, u32 src_stride, const elem* residual, u32 residual_stride, elem* dst, u32 dst_stride,
                                   int columns, int positions, int rows, float* partials, u32* counters, u32* generations, float* mean,
                                   float* variance, float* running_mean, float* running_variance, float factor, float unbiased,
                                   const float* scale, const float* shift, float epsilon, int relu) {
    u32* generation = generations + blockIdx.x;
    u32 before = generation_of(generation);
    if (batch_norm_statistics<V>(src, src_stride, columns, positions, rows, partials, counters, mean, variance, running_mean,
                                 running_variance, factor, unbiased))
        release_blocks(generation);
    else
        wait_for_release(generation, before);
    batch_norm_apply<V>(src, src_stride, residual, residual_stride, dst, dst_stride, columns, positions, rows, mean, variance, scale, shift,
                        epsilon, relu);
}

// A gradient's operands, and where each tensor's rows begin.
struct GradientSources {
    const elem *src, *dst, *diff_dst, *second;
    u32 src_stride, dst_stride, diff_dst_stride, second_stride;
};

// What every gradient reads of a row.
template <int V> struct GradientPacks { Pack<V> src, diff_dst; };

template <int V> HBN_DEVICE void load_packs(GradientPacks<V>& p, const GradientSources& from, int row, int positions, int column) {
    p.src = load_pack<V>(from.src + at(row, positions, from.src_stride, column));
    p.diff_dst = load_pack<V>(from.diff_dst + at(row, positions, from.diff_dst_stride, column));
}

// x, and the gradient that passes ReLU: where dst is positive (or NaN), as it was kept or as it follows from src.
template <int V>
HBN_DEVICE void masked_gradient(float (&x)[V], float (&g)[V], const GradientPacks<V>& p, const GradientSources& from,
                                const Normalizer<V>& n, int row, int positions, int column, int relu) {
    widen(x, p.src);
    widen(g, p.diff_dst);
    if (from.second) {
        float more[V];
        load(more, from.second + at(row, positions, from.second_stride, column));
#pragma unroll
        for (int i = 0; i < V; ++i)
            g[i] = widen(narrow(g[i] + more[i]));
    }
    if (!relu)
        return;
    float y[V];
    if (from.dst) {
        load(y, from.dst + at(row, positions, from.dst_stride, column));
    } else {
#pragma unroll
        for (int i = 0; i < V; ++i)
            y[i] = normalize(n, x[i], i);
    }
#pragma unroll
    for (int i = 0; i < V; ++i)
        g[i] = y[i] <= 0 ? 0.0f : g[i];
}

// True in the block that has merged the sums of its columns.
template <int V>
HBN_DEVICE bool batch_norm_gradient_sums(const GradientSources& from, int columns, int positions, int rows, const float* mean,
                                         const float* variance, const float* scale, const float* shift, float epsilon, int relu,
                                         float* partials, u32* counters, float* diff_scale, float* diff_shift) {
    int column = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    float sums[2][V] = {};
    Normalizer<V> n;
    read(n, mean, variance, scale, shift, epsilon, columns);
    if (column < columns) {
#pragma unroll 2
        for (int row = first_row(); row < rows; row += row_step()) {
            GradientPacks<V> packs;
            load_packs(packs, from, row, positions, column);
            float x[V], g[V];
            masked_gradient(x, g, packs, from, n, row, positions, column, relu);
#pragma unroll
            for (int i = 0; i < V; ++i) {
                sums[0][i] += g[i];
                sums[1][i] += g[i] * ((x[i] - n.mean[i]) * n.inverse[i]);
            }
        }
    }
    write_partials(sums, columns, column, partials);
    if (!is_last_block(counters + blockIdx.x, gridDim.y))
        return false;

    merge_partials<V, 2>(partials, columns, column);
    Total<2> total;
    for (int next = 0; next_total<V>(total, next, columns);) {
        diff_shift[blockIdx.z * columns + total.column] = static_cast<float>(total.sums[0]);
        diff_scale[blockIdx.z * columns + total.column] = static_cast<float>(total.sums[1]);
    }
    return true;
}

// diffSrc = gain * (g - sum(g)/m - (x - mean) * sum(g * xhat)/m * inverse), and gain * g where the statistics are constants (batch == 0).
// diffSrc may be src or diffDst: a thread reads an element before it writes it, and no other thread touches it. Shared memory has six
// floats per column.
template <int V>
HBN_DEVICE void batch_norm_gradient(const GradientSources& from, elem* diff_src, u32 diff_src_stride, elem* diff_residual,
                                    u32 diff_residual_stride, int columns, int positions, int rows, const float* mean,
                                    const float* variance, const float* scale, const float* shift, float epsilon, int relu, int batch,
                                    const float* diff_scale, const float* diff_shift) {
    int column = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    HBN_FOR_COLUMNS(V, columns, k, at) {
        float m = static_cast<float>(rows);
        of_columns<V>(4)[at] = batch ? diff_shift[k] / m : 0.0f;
        of_columns<V>(5)[at] = batch ? diff_scale[k] / m * inverse_deviation(variance[k], epsilon) : 0.0f;
    }
    Normalizer<V> n;
    read(n, mean, variance, scale, shift, epsilon, columns);
    if (column >= columns)
        return;
    float mean_g[V], slope[V];
    load_columns(mean_g, 4);
    load_columns(slope, 5);
    // The next row is read before this one is written; two whole rows at a time would take more registers than there are.
    GradientPacks<V> packs, next;
    int row = first_row();
    if (row < rows)
        load_packs(next, from, row, positions, column);
    for (; row < rows; row += row_step()) {
        packs = next;
        if (row + row_step() < rows)
            load_packs(next, from, row + row_step(), positions, column);
        float x[V], g[V], dx[V];
        masked_gradient(x, g, packs, from, n, row, positions, column, relu);
#pragma unroll
        for (int i = 0; i < V; ++i)
            dx[i] = n.gain[i] * (g[i] - mean_g[i] - (x[i] - n.mean[i]) * slope[i]);
        store(diff_src + at(row, positions, diff_src_stride, column), dx);
        if (diff_residual)
            store(diff_residual + at(row, positions, diff_residual_stride, column), g);
    }
}

// Both in one launch. The normalizers are read again after the barrier: kept across it, they would take the registers of both halves.
template <int V>
HBN_DEVICE void batch_norm_backward(const GradientSources& from, elem* diff_src, u32 diff_src_stride, elem* diff_residual,
                                    u32 diff_residual_stride, int columns, int positions, int rows, const float* mean,
                                    const float* variance, const float* scale, const float* shift, float epsilon, int relu, int batch,
                                    float* partials, u32* counters, u32* generations, float* diff_scale, float* diff_shift) {
    u32* generation = generations + blockIdx.x;
    u32 before = generation_of(generation);
    if (batch_norm_gradient_sums<V>(from, columns, positions, rows, mean, variance, scale, shift, epsilon, relu, partials, counters,
                                    diff_scale, diff_shift))
        release_blocks(generation);
    else
        wait_for_release(generation, before);
    batch_norm_gradient<V>(from, diff_src, diff_src_stride, diff_residual, diff_residual_stride, columns, positions, rows, mean, variance,
                           scale, shift, epsilon, relu, batch, diff_scale, diff_shift);
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
    HBN_KERNEL(batch_norm_forward_##suffix)                                                                                                \
    (const elem* src, u32 src_stride, const elem* residual, u32 residual_stride, elem* dst, u32 dst_stride, int columns, int positions,    \
     int rows, float* partials, u32* counters, u32* generations, float* mean, float* variance, float* running_mean,                        \
     float* running_variance, float factor, float unbiased, const float* scale, const float* shift, float epsilon, int relu) {             \
        batch_norm_forward<V>(src, src_stride, residual, residual_stride, dst, dst_stride, columns, positions, rows, partials, counters,   \
                              generations, mean, variance, running_mean, running_variance, factor, unbiased, scale, shift, epsilon, relu); \
    }                                                                                                                                      \
    HBN_KERNEL(batch_norm_gradient_sums_##suffix)                                                                                          \
    (const elem* src, u32 src_stride, const elem* dst, u32 dst_stride, const elem* diff_dst, u32 diff_dst_stride, const elem* second,      \
     u32 second_stride, int columns, int positions, int rows, const float* mean, const float* variance, const float* scale,                \
     const float* shift, float epsilon, int relu, float* partials, u32* counters, float* diff_scale, float* diff_shift) {                  \
        GradientSources from{src, dst, diff_dst, second, src_stride, dst_stride, diff_dst_stride, second_stride};                          \
        batch_norm_gradient_sums<V>(from, columns, positions, rows, mean, variance, scale, shift, epsilon, relu, partials, counters,       \
                                    diff_scale, diff_shift);                                                                               \
    }                                                                                                                                      \
    HBN_KERNEL(batch_norm_gradient_##suffix)                                                                                               \
    (const elem* src, u32 src_stride, const elem* dst, u32 dst_stride, const elem* diff_dst, u32 diff_dst_stride, const elem* second,      \
     u32 second_stride, elem* diff_src, u32 diff_src_stride, elem* diff_residual, u32 diff_residual_stride, int columns, int positions,    \
     int rows, const float* mean, const float* variance, const float* scale, const float* shift, float epsilon, int relu, int batch,       \
     const float* diff_scale, const float* diff_shift) {                                                                                   \
        GradientSources from{src, dst, diff_dst, second, src_stride, dst_stride, diff_dst_stride, second_stride};                          \
        batch_norm_gradient<V>(from, diff_src, diff_src_stride, diff_residual, diff_residual_stride, columns, positions, rows, mean,       \
                               variance, scale, shift, epsilon, relu, batch, diff_scale, diff_shift);                                      \
    }                                                                                                                                      \
    HBN_KERNEL(batch_norm_backward_##suffix)                                                                                               \
    (const elem* src, u32 src_stride, const elem* dst, u32 dst_stride, const elem* diff_dst, u32 diff_dst_stride, const elem* second,      \
     u32 second_stride, elem* diff_src, u32 diff_src_stride, elem* diff_residual, u32 diff_residual_stride, int columns, int positions,    \
     int rows, const float* mean, const float* variance, const float* scale, const float* shift, float epsilon, int relu, int batch,       \
     float* partials, u32* counters, u32* generations, float* diff_scale, float* diff_shift) {                                             \
        GradientSources from{src, dst, diff_dst, second, src_stride, dst_stride, diff_dst_stride, second_stride};                          \
        batch_norm_backward<V>(from, diff_src, diff_src_stride, diff_residual, diff_residual_stride, columns, positions, rows, mean,       \
                               variance, scale, shift, epsilon, relu, batch, partials, counters, generations, diff_scale, diff_shift);     \
    }                                                                                                                                      \
    HBN_KERNEL(column_sums_##suffix)                                                                                                       \
    (const elem* src, u32 stride, int columns, int rows, float* partials, u32* counters, float* sums) {                                    \
        column_sums<V>(src, stride, columns, rows, partials, counters, sums);                                                              \
    }

HBN_BATCH_NORM(wide, HBN_WIDTH)
HBN_BATCH_NORM(single, 1)
