// Operations on activations element by element, and the passages between layouts and types. Rows of all tensors are positions; a row of
// `columns` channels begins at row * stride.

// Runs body(row, column) for every group of V neighbouring channels; sizes are below 2^31.
#define HBN_FOR_EACH(V, row, column)                                                                                                       \
    for (u32 hbn_i = blockIdx.x * blockDim.x + threadIdx.x, hbn_per_row = columns / (V); hbn_i < static_cast<u32>(rows) * hbn_per_row;     \
         hbn_i += gridDim.x * blockDim.x)                                                                                                  \
        for (u32 row = hbn_i / hbn_per_row, column = (hbn_i - row * hbn_per_row) * (V), hbn_once = 1; hbn_once; hbn_once = 0)

// Numbered as CudnnElementwise.cs numbers them. A number that is none gives NaN, never another function.
enum Function { RELU = 0, SIGMOID = 1, TANH = 2, GELU = 3, SILU = 4, HARD_SWISH = 5 };

HBN_DEVICE float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

// Of the standard normal distribution. erfc keeps the lower tail's relative accuracy, where 1 + erf would leave nothing.
HBN_DEVICE float normal_cdf(float x) {
    return 0.5f * erfcf(-0.70710678f * x);
}

HBN_DEVICE float activate(float x, int function) {
    switch (function) {
    case RELU:
        return x > 0 ? x : x <= 0 ? 0.0f : x;
    case SIGMOID:
        return sigmoid(x);
    case TANH:
        return tanhf(x);
    case GELU:
        return x * normal_cdf(x);
    case SILU:
        return x * sigmoid(x);
    case HARD_SWISH:
        // A NaN is neither below nor above; an infinity below gives NaN, as everywhere else.
        return x >= 3.0f ? x : x <= -3.0f ? x * 0.0f : x * (x + 3.0f) / 6.0f;
    default:
        return __uint_as_float(0x7FC00000u);
    }
}

// f'(src) * g from what the forward pass kept: dst for RELU, SIGMOID and TANH, src for the others.
HBN_DEVICE float activate_gradient(float kept, float g, int function) {
    float s;
    switch (function) {
    case RELU:
        return kept <= 0 ? 0.0f : g;
    case SIGMOID:
        return g * kept * (1.0f - kept);
    case TANH:
        return g * (1.0f - kept * kept);
    case GELU:
        return g * (normal_cdf(kept) + kept * 0.39894228f * expf(-0.5f * kept * kept));
    case SILU:
        s = sigmoid(kept);
        return g * s * (1.0f + kept * (1.0f - s));
    case HARD_SWISH:
        return kept >= 3.0f ? g : kept <= -3.0f ? 0.0f : g * (2.0f * kept + 3.0f) / 6.0f;
    default:
        return __uint_as_float(0x7FC00000u);
    }
}

template <int V>
HBN_DEVICE void activation_forward(const elem* src, u32 src_stride, elem* dst, u32 dst_stride, int rows, int columns, int function) {
    HBN_FOR_EACH(V, row, column) {
        float x[V];
        load(x, src + row * src_stride + column);
#pragma unroll
        for (int i = 0; i < V; ++i)
            x[i] = activate(x[i], function);
        store(dst + row * dst_stride + column, x);
    }
}

template <int V>
HBN_DEVICE void activation_backward(const elem* kept, u32 kept_stride, const elem* diff_dst, u32 diff_dst_stride, elem* diff_src,
                                    u32 diff_src_stride, int rows, int columns, int function) {
    HBN_FOR_EACH(V, row, column) {
        float y[V], g[V];
        load(y, kept + row * kept_stride + column);
        load(g, diff_dst + row * diff_dst_stride + column);
#pragma unroll
        for (int i = 0; i < V; ++i)
            g[i] = activate_gradient(y[i], g[i], function);
        store(diff_src + row * diff_src_stride + column, g);
    }
}

// dst = a + b + c + d, in this order; those that are null end the sum. dst may be a.
template <int V>
HBN_DEVICE void sum(const elem* a, u32 a_stride, const elem* b, u32 b_stride, const elem* c, u32 c_stride, const elem* d, u32 d_stride,
                    elem* dst, u32 dst_stride, int rows, int columns) {
    HBN_FOR_EACH(V, row, column) {
        float total[V], x[V];
        load(total, a + row * a_stride + column);
        load(x, b + row * b_stride + column);
#pragma unroll
        for (int i = 0; i < V; ++i)
            total[i] += x[i];
        if (c) {
            load(x, c + row * c_stride + column);
#pragma unroll
            for (int i = 0; i < V; ++i)
                total[i] += x[i];
        }
        if (d) {
            load(x, d + row * d_stride + column);
#pragma unroll
            for (int i = 0; i < V; ++i)
                total[i] += x[i];
        }
        store(dst + row * dst_stride + column, total);
    }
}

template <int V> HBN_DEVICE void copy(const elem* src, u32 src_stride, elem* dst, u32 dst_stride, int rows, int columns) {
    HBN_FOR_EACH(V, row, column) {
        *reinterpret_cast<Pack<V>*>(dst + row * dst_stride + column) = *reinterpret_cast<const Pack<V>*>(src + row * src_stride + column);
    }
}

// dst += bias, then ReLU.
template <int V> HBN_DEVICE void add_bias(elem* dst, u32 stride, const float* bias, int rows, int columns, int relu) {
    HBN_FOR_EACH(V, row, column) {
        float x[V], b[V];
        load(x, dst + row * stride + column);
        load_parameters(b, bias + column);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            x[i] += b[i];
            x[i] = relu ? activate(x[i], RELU) : x[i];
        }
        store(dst + row * stride + column, x);
    }
}

#define HBN_ELEMENTWISE(suffix, V)                                                                                                         \
    HBN_KERNEL(activation_forward_##suffix)                                                                                                \
    (const elem* src, u32 src_stride, elem* dst, u32 dst_stride, int rows, int columns, int function) {                                    \
        activation_forward<V>(src, src_stride, dst, dst_stride, rows, columns, function);                                                  \
    }                                                                                                                                      \
    HBN_KERNEL(activation_backward_##suffix)                                                                                               \
    (const elem* kept, u32 kept_stride, const elem* diff_dst, u32 diff_dst_stride, elem* diff_src, u32 diff_src_stride, int rows,          \
     int columns, int function) {                                                                                                          \
        activation_backward<V>(kept, kept_stride, diff_dst, diff_dst_stride, diff_src, diff_src_stride, rows, columns, function);          \
    }                                                                                                                                      \
    HBN_KERNEL(sum_##suffix)                                                                                                               \
    (const elem* a, u32 a_stride, const elem* b, u32 b_stride, const elem* c, u32 c_stride, const elem* d, u32 d_stride, elem* dst,        \
     u32 dst_stride, int rows, int columns) {                                                                                              \
        sum<V>(a, a_stride, b, b_stride, c, c_stride, d, d_stride, dst, dst_stride, rows, columns);                                        \
    }                                                                                                                                      \
    HBN_KERNEL(copy_##suffix)(const elem* src, u32 src_stride, elem* dst, u32 dst_stride, int rows, int columns) {                         \
        copy<V>(src, src_stride, dst, dst_stride, rows, columns);                                                                          \
    }                                                                                                                                      \
    HBN_KERNEL(add_bias_##suffix)(elem * dst, u32 stride, const float* bias, int rows, int columns, int relu) {                            \
        add_bias<V>(dst, stride, bias, rows, columns, relu);                                                                               \
    }

HBN_ELEMENTWISE(wide, HBN_WIDTH)
HBN_ELEMENTWISE(single, 1)

// Between the element type and fp32.
HBN_KERNEL(copy_to_float)(const elem* src, u32 src_stride, float* dst, u32 dst_stride, int rows, int columns) {
    HBN_FOR_EACH(1, row, column) dst[row * dst_stride + column] = widen(src[row * src_stride + column]);
}

HBN_KERNEL(copy_from_float)(const float* src, u32 src_stride, elem* dst, u32 dst_stride, int rows, int columns) {
    HBN_FOR_EACH(1, row, column) dst[row * dst_stride + column] = narrow(src[row * src_stride + column]);
}

// dst += bias in fp32: logits.
HBN_KERNEL(add_bias_float)(float* dst, u32 stride, const float* bias, int rows, int columns) {
    HBN_FOR_EACH(1, row, column) dst[row * stride + column] += bias[column];
}

// dst = (pixel - mean[c]) * inverse[c]; pixels lie densely. Columns beyond the channels are 0.
HBN_KERNEL(prepare_input)
(const u8* pixels, elem* dst, u32 dst_stride, const float* mean, const float* inverse, int rows, int channels, int columns) {
    HBN_FOR_EACH(1, row, column) {
        float x = column < channels ? (static_cast<float>(pixels[row * channels + column]) - mean[column]) * inverse[column] : 0.0f;
        dst[row * dst_stride + column] = narrow(x);
    }
}

// Dense rows of `channels`, with zeros behind them up to `columns`.
HBN_KERNEL(pad_channels)(const elem* src, elem* dst, int rows, int channels, int columns) {
    HBN_FOR_EACH(1, row, column) {
        dst[row * columns + column] = column < channels ? src[row * channels + column] : narrow(0.0f);
    }
}

// Word `lane` of Philox4x32-10 at a counter.
HBN_DEVICE u32 philox(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1, u32 lane) {
    for (int round = 0; round < 10; ++round) {
        u64 p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
        u32 n0 = static_cast<u32>(p1 >> 32) ^ c1 ^ k0, n2 = static_cast<u32>(p0 >> 32) ^ c3 ^ k1;
        c0 = n0;
        c1 = static_cast<u32>(p1);
        c2 = n2;
        c3 = static_cast<u32>(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return lane == 0 ? c0 : lane == 1 ? c1 : lane == 2 ? c2 : c3;
}

// The mask is a function of the element's index in NCHW order, of the step, the seed and the layer's stream: the same on every backend,
// never stored.
HBN_KERNEL(dropout)
(const elem* src, u32 src_stride, elem* dst, u32 dst_stride, int rows, int columns, int area, u32 threshold, float kept_scale, u32 stream,
 u32 seed_low, u32 seed_high, const StepState* state) {
    HBN_FOR_EACH(1, row, column) {
        u32 image = row / area, position = row - image * area, index = (image * columns + column) * area + position;
        u32 word = philox(index / 4, stream, state->step_low, state->step_high, seed_low, seed_high, index % 4);
        float x = widen(src[row * src_stride + column]);
        dst[row * dst_stride + column] = narrow(word >= threshold ? x * kept_scale : 0.0f);
    }
}

// Local response normalization across channels: base[c] = K + alpha/size * sum of squares around c; dst = src * base^-beta. The backward
// pass reads the bases that the forward pass kept.
HBN_KERNEL(lrn_forward)
(const elem* src, u32 src_stride, elem* dst, u32 dst_stride, float* base, int rows, int columns, int half, float scale, float beta,
 float k) {
    HBN_FOR_EACH(1, row, column) {
        const elem* pixel = src + row * src_stride;
        int from = static_cast<int>(column) - half, to = column + half;
        from = from < 0 ? 0 : from;
        to = to >= columns ? columns - 1 : to;
        float squares = 0;
        for (int c = from; c <= to; ++c)
            squares += widen(pixel[c]) * widen(pixel[c]);
        float s = k + scale * squares;
        if (base)
            base[row * columns + column] = s;
        dst[row * dst_stride + column] = narrow(widen(pixel[column]) * powf(s, -beta));
    }
}

HBN_KERNEL(lrn_backward)
(const elem* src, u32 src_stride, const elem* diff_dst, u32 diff_dst_stride, elem* diff_src, u32 diff_src_stride, const float* base,
 int rows, int columns, int half, float scale, float beta) {
    HBN_FOR_EACH(1, row, column) {
        const elem *x = src + row * src_stride, *g = diff_dst + row * diff_dst_stride;
        const float* s = base + row * columns;
        int from = static_cast<int>(column) - half, to = column + half;
        from = from < 0 ? 0 : from;
        to = to >= columns ? columns - 1 : to;
        float through = 0;
        for (int c = from; c <= to; ++c)
            through += widen(g[c]) * widen(x[c]) * powf(s[c], -beta) / s[c];
        float direct = widen(g[column]) * powf(s[column], -beta);
        diff_src[row * diff_src_stride + column] = narrow(direct - 2 * scale * beta * widen(x[column]) * through);
    }
}
