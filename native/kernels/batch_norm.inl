// Convolutional batch normalization: statistics of each channel over all positions of all images.
//
// The work is cut into units of one image and one channel group: B channels side by side (blocked), or one channel (plain). A unit is
// summed in chunks, as deviations from the chunk's first value, so that a common offset costs no precision and an outlier spoils at most
// its own chunk; chunks and images are merged in double, always in the same order, so the result does not depend on the number of threads.
//
// forward:  y = (x - m)*a + s with m = mean, a = scale/sqrt(variance + epsilon), s = shift, all as the floats that are stored; the backward
// pass recomputes the ReLU mask from the same three floats with the same expression (compiled with the same contraction), hence bit for
// bit. backward: dx = a*g - k1 - (x - m)*k2, g = masked dy, k1 = a*sum(g)/M, k2 = a*sum(g*(x-m))*i*i/M, i = 1/sqrt(variance + epsilon).

constexpr int64_t kChunk = 256; // positions: 16 KiB of 16 channels

// A variance of exactly 0 with epsilon 0 gives 0, the limit for constant values; padded channels rely on it to stay zero.
HBN_INLINE double inverse_deviation(float variance, float epsilon) {
    const double square = (double)variance + (double)epsilon;
    return square == 0 ? 0 : 1.0 / sqrt(square);
}

template <typename V> HBN_INLINE V affine(V x, V m, V a, V s) {
    return (x - m) * a + s;
}

// Adds the sum and the squared deviations (from their own mean) of n2 values to those of n; Chan et al.
template <typename D> HBN_INLINE void merge_moments(double n, D& sum, D& m2, double n2, D sum2, D m2_2) {
    if (n > 0) {
        const D delta = sum2 / n2 - sum / n;
        m2 += delta * delta * (n * (n2 / (n + n2)));
    }
    sum += sum2;
    m2 += m2_2;
}

// Sum and squared deviations of `area` groups of B lanes.
template <int B, typename T> static void lane_moments(const T* x, int64_t area, double* sum_out, double* m2_out) {
    Double<B> sum{}, m2{};
    for (int64_t start = 0; start < area; start += kChunk) {
        const int64_t length = minimum(kChunk, area - start);
        const T* p = x + start * B;
        const Float<B> pivot = load<B>(p);
        Float<B> u0{}, u1{}, u2{}, u3{}, q0{}, q1{}, q2{}, q3{};
        int64_t i = 0;
        for (; i + 4 <= length; i += 4) {
            const Float<B> d0 = load<B>(p + i * B) - pivot, d1 = load<B>(p + (i + 1) * B) - pivot;
            const Float<B> d2 = load<B>(p + (i + 2) * B) - pivot, d3 = load<B>(p + (i + 3) * B) - pivot;
            u0 += d0, u1 += d1, u2 += d2, u3 += d3;
            q0 += d0 * d0, q1 += d1 * d1, q2 += d2 * d2, q3 += d3 * d3;
        }
        for (; i < length; i++) {
            const Float<B> d = load<B>(p + i * B) - pivot;
            u0 += d;
            q0 += d * d;
        }
        const double count = (double)length;
        const Double<B> u = widen<B>((u0 + u1) + (u2 + u3)), q = widen<B>((q0 + q1) + (q2 + q3));
        merge_moments<Double<B>>((double)start, sum, m2, count, widen<B>(pivot) * count + u, q - u * u / count);
    }
    store_double<B>(sum_out, sum);
    store_double<B>(m2_out, m2);
}

// The same for one channel of contiguous positions: lanes first, then the lanes merged.
template <typename T> static void run_moments(const T* x, int64_t area, double* sum_out, double* m2_out) {
    constexpr int W = kWidth;
    double sum = 0, m2 = 0, n = 0;
    const int64_t vectors = area / W;
    if (vectors > 0) {
        double lane_sum[W], lane_m2[W];
        lane_moments<W>(x, vectors, lane_sum, lane_m2);
        for (int l = 0; l < W; l++) {
            merge_moments<double>(n, sum, m2, (double)vectors, lane_sum[l], lane_m2[l]);
            n += (double)vectors;
        }
    }
    for (int64_t i = vectors * W; i < area; i++) {
        merge_moments<double>(n, sum, m2, 1.0, (double)x[i], 0.0);
        n += 1;
    }
    *sum_out = sum;
    *m2_out = m2;
}

// Sums of g and g*(x - m), g = dy where the mask holds: where ReLU's output is positive, or NaN, behind which no gradient turns to 0.
enum class Mask { None, Recompute, FromDst };

template <int B, Mask K, typename T> HBN_INLINE Float<B> masked(const T* dy, Float<B> x, const T* y, Float<B> m, Float<B> a, Float<B> s) {
    const Float<B> g = load<B>(dy);
    if (K == Mask::None) {
        return g;
    }
    const Float<B> value = K == Mask::FromDst ? load<B>(y) : affine<Float<B>>(x, m, a, s);
    return value <= 0.0f ? Float<B>{} : g;
}

template <Mask K, typename T> HBN_INLINE float masked_one(float dy, float x, const T* y, float m, float a, float s) {
    if (K == Mask::None) {
        return dy;
    }
    const float value = K == Mask::FromDst ? (float)*y : affine<float>(x, m, a, s);
    return value <= 0.0f ? 0.0f : dy;
}

template <int B, Mask K, typename T>
static void lane_gradient_sums(const T* x, const T* y, const T* dy, int64_t area, Float<B> m, Float<B> a, Float<B> s, double* sum_out,
                               double* dot_out) {
    Double<B> sum{}, dot{};
    for (int64_t start = 0; start < area; start += kChunk) {
        const int64_t end = minimum(start + kChunk, area);
        Float<B> u0{}, u1{}, v0{}, v1{};
        int64_t i = start;
        for (; i + 2 <= end; i += 2) {
            const Float<B> x0 = load<B>(x + i * B), x1 = load<B>(x + (i + 1) * B);
            const Float<B> g0 = masked<B, K>(dy + i * B, x0, y + i * B, m, a, s);
            const Float<B> g1 = masked<B, K>(dy + (i + 1) * B, x1, y + (i + 1) * B, m, a, s);
            u0 += g0, u1 += g1;
            v0 += g0 * (x0 - m), v1 += g1 * (x1 - m);
        }
        if (i < end) {
            const Float<B> x0 = load<B>(x + i * B);
            const Float<B> g0 = masked<B, K>(dy + i * B, x0, y + i * B, m, a, s);
            u0 += g0;
            v0 += g0 * (x0 - m);
        }
        sum += widen<B>(u0 + u1);
        dot += widen<B>(v0 + v1);
    }
    store_double<B>(sum_out, sum);
    store_double<B>(dot_out, dot);
}

template <Mask K, typename T>
static void run_gradient_sums(const T* x, const T* y, const T* dy, int64_t area, float m, float a, float s, double* sum_out,
                              double* dot_out) {
    constexpr int W = kWidth;
    double lane_sum[W], lane_dot[W];
    const int64_t vectors = area / W;
    lane_gradient_sums<W, K>(x, y, dy, vectors, broadcast<W>(m), broadcast<W>(a), broadcast<W>(s), lane_sum, lane_dot);
    double sum = 0, dot = 0;
    for (int l = 0; l < W; l++) {
        sum += lane_sum[l];
        dot += lane_dot[l];
    }
    for (int64_t i = vectors * W; i < area; i++) {
        const float g = masked_one<K>(dy[i], x[i], K == Mask::FromDst ? y + i : x, m, a, s);
        sum += (double)g;
        dot += (double)g * (double)(x[i] - m);
    }
    *sum_out = sum;
    *dot_out = dot;
}

// The comparison of the ReLU lets NaN through: it must reach the loss, where it is noticed.
template <int B, bool Relu, bool Residual, typename T>
static void lane_normalize(const T* x, const T* r, T* y, int64_t area, Float<B> m, Float<B> a, Float<B> s) {
    for (int64_t i = 0; i < area; i++) {
        Float<B> v = affine<Float<B>>(load<B>(x + i * B), m, a, s);
        if (Residual) {
            v += load<B>(r + i * B);
        }
        if (Relu) {
            v = v < 0.0f ? Float<B>{} : v;
        }
        store<B>(y + i * B, v);
    }
}

template <bool Relu, bool Residual, typename T>
static void run_normalize(const T* x, const T* r, T* y, int64_t area, float m, float a, float s) {
    constexpr int W = kWidth;
    const int64_t vectors = area / W;
    lane_normalize<W, Relu, Residual>(x, r, y, vectors, broadcast<W>(m), broadcast<W>(a), broadcast<W>(s));
    for (int64_t i = vectors * W; i < area; i++) {
        float v = affine<float>(x[i], m, a, s);
        if (Residual) {
            v += r[i];
        }
        y[i] = Relu && v < 0.0f ? 0.0f : v;
    }
}

// g = dy + more where y is positive (or NaN), or everywhere when y is null. g may be dy.
template <int B, typename T> static void lane_sum_masked(const T* y, const T* dy, const T* more, T* g, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        const Float<B> sum = load<B>(dy + i * B) + load<B>(more + i * B);
        store<B>(g + i * B, y == nullptr ? sum : load<B>(y + i * B) <= 0.0f ? Float<B>{} : sum);
    }
}

template <typename T> static void sum_masked(const T* y, const T* dy, const T* more, T* g, int64_t count) {
    constexpr int W = kWidth;
    const int64_t vectors = count / W;
    lane_sum_masked<W>(y, dy, more, g, vectors);
    for (int64_t i = vectors * W; i < count; i++) {
        const float sum = (float)dy[i] + (float)more[i];
        g[i] = y != nullptr && (float)y[i] <= 0.0f ? 0.0f : sum;
    }
}

// dx, and dr = g when wanted. dx may be x or dy: every element is read before it is written.
template <int B, Mask K, bool Residual, typename T>
static void lane_gradient(const T* x, const T* y, const T* dy, T* dx, T* dr, int64_t area, Float<B> m, Float<B> a, Float<B> s, Float<B> k1,
                          Float<B> k2) {
    for (int64_t i = 0; i < area; i++) {
        const Float<B> v = load<B>(x + i * B);
        const Float<B> g = masked<B, K>(dy + i * B, v, y + i * B, m, a, s);
        if (Residual) {
            store<B>(dr + i * B, g);
        }
        store<B>(dx + i * B, a * g - k1 - (v - m) * k2);
    }
}

template <Mask K, bool Residual, typename T>
static void run_gradient(const T* x, const T* y, const T* dy, T* dx, T* dr, int64_t area, float m, float a, float s, float k1, float k2) {
    constexpr int W = kWidth;
    const int64_t vectors = area / W;
    lane_gradient<W, K, Residual>(x, y, dy, dx, dr, vectors, broadcast<W>(m), broadcast<W>(a), broadcast<W>(s), broadcast<W>(k1),
                                  broadcast<W>(k2));
    for (int64_t i = vectors * W; i < area; i++) {
        const float v = x[i];
        const float g = masked_one<K>(dy[i], v, K == Mask::FromDst ? y + i : x, m, a, s);
        if (Residual) {
            dr[i] = g;
        }
        dx[i] = a * g - k1 - (v - m) * k2;
    }
}

// What one channel group needs in the second pass; lives in scratch, one row of `padded` floats each.
struct Coefficients {
    float *m, *a, *s, *k1, *k2;
    Coefficients(double* scratch, int64_t padded) {
        m = (float*)scratch;
        a = m + padded;
        s = a + padded;
        k1 = s + padded;
        k2 = k1 + padded;
    }
};

HBN_INLINE float value_at(const Values& v, int64_t c, int64_t channels) {
    return c < channels ? v.data[c] : 0.0f;
}

HBN_INLINE void set_value(const Values& v, int64_t c, int64_t channels, float x) {
    if (c < v.padded) {
        v.data[c] = c < channels ? x : 0.0f;
    }
}

// Channels of a group that exist, and the padded ones, get their coefficients; padded ones all zero, so that padding stays zero.
HBN_INLINE void affine_coefficients(const Coefficients& k, int64_t c, int64_t channels, float mean, float variance, float epsilon,
                                    const Values& scale, const Values& shift) {
    const bool real = c < channels;
    k.m[c] = real ? mean : 0.0f;
    k.a[c] = real ? (float)((double)scale.data[c] * inverse_deviation(variance, epsilon)) : 0.0f;
    k.s[c] = real ? shift.data[c] : 0.0f;
}

static void batch_norm_affine(int64_t channels, int64_t padded, const Values& scale, const Values& shift, const Values& mean,
                              const Values& variance, float epsilon, float* to) {
    const Coefficients k((double*)to, padded); // its k1 and k2 are not touched
    for (int64_t c = 0; c < padded; c++) {
        affine_coefficients(k, c, channels, value_at(mean, c, channels), value_at(variance, c, channels), epsilon, scale, shift);
    }
}

template <int L> // lanes of a group: the block, or 1 for plain
struct BatchNormPass {
    static constexpr int lanes = L;

    template <typename T> static void moments(const T* x, int64_t area, double* sum, double* m2) {
        if constexpr (L == 1) {
            run_moments(x, area, sum, m2);
        } else {
            lane_moments<L>(x, area, sum, m2);
        }
    }

    template <bool Relu, bool Residual, typename T>
    static void normalize(const T* x, const T* r, T* y, int64_t area, const Coefficients& k, int64_t c) {
        if constexpr (L == 1) {
            run_normalize<Relu, Residual>(x, r, y, area, k.m[c], k.a[c], k.s[c]);
        } else {
            lane_normalize<L, Relu, Residual>(x, r, y, area, load<L>(k.m + c), load<L>(k.a + c), load<L>(k.s + c));
        }
    }

    template <Mask K, typename T>
    static void gradient_sums(const T* x, const T* y, const T* dy, int64_t area, const Coefficients& k, int64_t c, double* sum,
                              double* dot) {
        if constexpr (L == 1) {
            run_gradient_sums<K>(x, y, dy, area, k.m[c], k.a[c], k.s[c], sum, dot);
        } else {
            lane_gradient_sums<L, K>(x, y, dy, area, load<L>(k.m + c), load<L>(k.a + c), load<L>(k.s + c), sum, dot);
        }
    }

    template <Mask K, bool Residual, typename T>
    static void gradient(const T* x, const T* y, const T* dy, T* dx, T* dr, int64_t area, const Coefficients& k, int64_t c) {
        if constexpr (L == 1) {
            run_gradient<K, Residual>(x, y, dy, dx, dr, area, k.m[c], k.a[c], k.s[c], k.k1[c], k.k2[c]);
        } else {
            lane_gradient<L, K, Residual>(x, y, dy, dx, dr, area, load<L>(k.m + c), load<L>(k.a + c), load<L>(k.s + c), load<L>(k.k1 + c),
                                          load<L>(k.k2 + c));
        }
    }
};

// Runs reduce(image, group), finish(group) once all images of the group are reduced, then apply(image, group) with the images in reverse,
// so that the ones read last are still in the cache. Whole groups per thread when there are enough of them: then a group's second pass
// follows its first at once and no thread waits for another. Otherwise the images of all groups are shared out.
template <typename Reduce, typename Finish, typename Apply>
static void two_passes(int64_t images, int64_t groups, int64_t elements, Reduce reduce, Finish finish, Apply apply) {
    const int64_t threads = omp_get_max_threads();
    if (threads == 1 || elements < kParallelElements || groups % threads == 0 || groups >= 8 * threads) {
#pragma omp parallel for schedule(static) if (elements >= kParallelElements)
        for (int64_t g = 0; g < groups; g++) {
            for (int64_t n = 0; n < images; n++) {
                reduce(n, g);
            }
            finish(g);
            for (int64_t n = images - 1; n >= 0; n--) {
                apply(n, g);
            }
        }
        return;
    }
#pragma omp parallel
    {
        const int64_t units = images * groups, team = omp_get_num_threads(), me = omp_get_thread_num();
        const int64_t low = units * me / team, high = units * (me + 1) / team;
        for (int64_t u = low; u < high; u++) {
            reduce(u / groups, u % groups);
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t g = 0; g < groups; g++) {
            finish(g);
        }
        for (int64_t u = high - 1; u >= low; u--) {
            apply(u / groups, u % groups);
        }
    }
}

template <typename T, int L, bool Relu, bool Residual> static void forward_groups(const BatchNormForward& p) {
    using Pass = BatchNormPass<L>;
    const int64_t images = p.extent.images, channels = p.extent.channels, area = p.extent.area;
    const int64_t groups = ceil_div(channels, L), padded = groups * L, group_stride = area * L;
    double* sums = p.scratch;
    double* m2s = sums + images * padded;
    const Coefficients k(m2s + images * padded, padded);
    const double count = (double)images * (double)area;

    auto reduce = [&](int64_t n, int64_t g) {
        if (p.batch_statistics) {
            Pass::moments(image<T>(p.src, n) + g * group_stride, area, sums + n * padded + g * L, m2s + n * padded + g * L);
        }
    };
    auto finish = [&](int64_t g) {
        for (int64_t c = g * L; c < (g + 1) * L; c++) {
            if (!p.batch_statistics) {
                affine_coefficients(k, c, channels, value_at(p.running_mean, c, channels), value_at(p.running_variance, c, channels),
                                    p.epsilon, p.scale, p.shift);
                continue;
            }
            double sum = 0, m2 = 0;
            for (int64_t n = 0; n < images; n++) {
                merge_moments<double>((double)n * (double)area, sum, m2, (double)area, sums[n * padded + c], m2s[n * padded + c]);
            }
            m2 = m2 < 0 ? 0 : m2; // by rounding; NaN passes through
            const double mean = sum / count;
            const float variance = (float)(m2 / count);
            set_value(p.mean, c, channels, (float)mean);
            set_value(p.variance, c, channels, variance);
            if (p.stage ==
                Stage::Reduce) { // what rounding took, for who joins them: of close values far from zero it is most of their spread
                set_value(p.running_mean, c, channels, (float)(mean - (double)(float)mean));
                set_value(p.running_variance, c, channels, (float)(m2 / count - (double)variance));
            } else if (p.running_mean.data != nullptr) {
                const double f = p.averaging_factor, unbiased = count > 1 ? m2 / (count - 1) : m2 / count;
                set_value(p.running_mean, c, channels, (float)((1 - f) * value_at(p.running_mean, c, channels) + f * mean));
                set_value(p.running_variance, c, channels, (float)((1 - f) * value_at(p.running_variance, c, channels) + f * unbiased));
            }
            affine_coefficients(k, c, channels, (float)mean, variance, p.epsilon, p.scale, p.shift);
        }
    };
    auto apply = [&](int64_t n, int64_t g) {
        if (p.stage == Stage::Reduce || p.dst.data == nullptr) {
            return;
        }
        const int64_t at = g * group_stride;
        Pass::template normalize<Relu, Residual>(image<T>(p.src, n) + at, Residual ? image<T>(p.residual, n) + at : nullptr,
                                                 image<T>(p.dst, n) + at, area, k, g * L);
    };
    two_passes(images, groups, images * padded * area, reduce, finish, apply);
}

template <typename T, int L, Mask K, bool Residual> static void backward_groups(const BatchNormBackward& p) {
    using Pass = BatchNormPass<L>;
    const int64_t images = p.extent.images, channels = p.extent.channels, area = p.extent.area;
    const int64_t groups = ceil_div(channels, L), padded = groups * L, group_stride = area * L;
    double* sums = p.scratch;
    double* dots = sums + images * padded;
    const Coefficients k(dots + images * padded, padded);
    const double count = (double)images * (double)area;
    for (int64_t c = 0; c < padded; c++) {
        affine_coefficients(k, c, channels, value_at(p.mean, c, channels), value_at(p.variance, c, channels), p.epsilon, p.scale, p.shift);
    }

    // Two contributions to the gradient of dst: their masked sum goes to diff_residual first, and everything else comes from there.
    const bool two = Residual && p.second_diff_dst.data != nullptr;
    auto reduce = [&](int64_t n, int64_t g) {
        if (p.stage == Stage::Apply) {
            return;
        }
        const int64_t at = g * group_stride;
        const T* x = image<T>(p.src, n) + at;
        if (two) {
            T* sum = image<T>(p.diff_residual, n) + at;
            sum_masked<T>(K == Mask::FromDst ? image<T>(p.dst, n) + at : nullptr, image<T>(p.diff_dst, n) + at,
                          image<T>(p.second_diff_dst, n) + at, sum, group_stride);
            Pass::template gradient_sums<Mask::None>(x, x, sum, area, k, g * L, sums + n * padded + g * L, dots + n * padded + g * L);
            return;
        }
        Pass::template gradient_sums<K>(x, K == Mask::FromDst ? image<T>(p.dst, n) + at : x, image<T>(p.diff_dst, n) + at, area, k, g * L,
                                        sums + n * padded + g * L, dots + n * padded + g * L);
    };
    auto finish = [&](int64_t g) {
        for (int64_t c = g * L; c < (g + 1) * L; c++) {
            double sum = 0, dot = 0;
            for (int64_t n = 0; n < images && p.stage != Stage::Apply; n++) {
                sum += sums[n * padded + c];
                dot += dots[n * padded + c];
            }
            const double i = c < channels ? inverse_deviation(p.variance.data[c], p.epsilon) : 0;
            if (p.stage == Stage::Apply) {
                sum = value_at(p.diff_shift, c, channels);
                dot = i == 0 ? 0 : value_at(p.diff_scale, c, channels) / i;
            } else {
                set_value(p.diff_scale, c, channels, (float)(dot * i));
                set_value(p.diff_shift, c, channels, (float)sum);
            }
            const bool through = p.batch_statistics && c < channels;
            k.k1[c] = through ? (float)(k.a[c] * sum / count) : 0.0f;
            k.k2[c] = through ? (float)(k.a[c] * dot * i * i / count) : 0.0f;
        }
    };
    auto apply = [&](int64_t n, int64_t g) {
        if (p.stage == Stage::Reduce) {
            return;
        }
        const int64_t at = g * group_stride;
        const T* x = image<T>(p.src, n) + at;
        if (two) {
            const T* sum = image<T>(p.diff_residual, n) + at;
            Pass::template gradient<Mask::None, false>(x, x, sum, image<T>(p.diff_src, n) + at, (T*)nullptr, area, k, g * L);
            return;
        }
        Pass::template gradient<K, Residual>(x, K == Mask::FromDst ? image<T>(p.dst, n) + at : x, image<T>(p.diff_dst, n) + at,
                                             image<T>(p.diff_src, n) + at, Residual ? image<T>(p.diff_residual, n) + at : nullptr, area, k,
                                             g * L);
    };
    two_passes(images, groups, images * padded * area, reduce, finish, apply);
}

template <typename T, int L> static void forward_select(const BatchNormForward& p) {
    const bool residual = p.residual.data != nullptr;
    if (p.relu) {
        residual ? forward_groups<T, L, true, true>(p) : forward_groups<T, L, true, false>(p);
    } else {
        residual ? forward_groups<T, L, false, true>(p) : forward_groups<T, L, false, false>(p);
    }
}

template <typename T, int L, bool Residual> static void backward_select(const BatchNormBackward& p) {
    if (!p.relu) {
        backward_groups<T, L, Mask::None, Residual>(p);
    } else if (p.dst.data != nullptr) {
        backward_groups<T, L, Mask::FromDst, Residual>(p);
    } else {
        backward_groups<T, L, Mask::Recompute, Residual>(p);
    }
}

template <typename T, int L> static void backward_select(const BatchNormBackward& p) {
    p.diff_residual.data != nullptr ? backward_select<T, L, true>(p) : backward_select<T, L, false>(p);
}
