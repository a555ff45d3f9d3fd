// Batch normalization with one mean and variance per position of an image (per activation; also per channel of 1x1 images): statistics over
// the images. Positions are physical ones, so padded channels are positions too; they get zero coefficients. Same formulas as
// batch_norm.inl.

constexpr int64_t kTile = 64; // positions handled together

struct Tile {
    float m[kTile], a[kTile], s[kTile], k1[kTile], k2[kTile];
};

// Real positions: those whose parameters exist. A per-activation tensor's padding lies inside its positions, where the parameters' own
// padding, being zero, does the same service.
HBN_INLINE int64_t real_positions(bool per_activation, const Extent& e, const Values& scale) {
    return per_activation ? scale.padded : e.channels;
}

static int64_t physical_positions(const Extent& e, const View& v) {
    return v.block == 1 ? e.channels * e.area : ceil_div(e.channels, v.block) * v.block * e.area;
}

static void tile_coefficients(Tile& t, int64_t at, int64_t length, int64_t real, const float* mean, const float* variance, float epsilon,
                              const Values& scale, const Values& shift) {
    for (int64_t i = 0; i < length; i++) {
        const bool exists = at + i < real;
        t.m[i] = exists ? mean[i] : 0.0f;
        t.a[i] = exists ? (float)((double)scale.data[at + i] * inverse_deviation(variance[i], epsilon)) : 0.0f;
        t.s[i] = exists ? shift.data[at + i] : 0.0f;
    }
}

template <typename T> static void forward_positions(const BatchNormForward& p) {
    const int64_t positions = physical_positions(p.extent, p.src), images = p.extent.images;
    const int64_t real = real_positions(p.per_activation, p.extent, p.scale);
#pragma omp parallel for schedule(static) if (positions * images >= kParallelElements)
    for (int64_t at = 0; at < positions; at += kTile) {
        const int64_t length = minimum(kTile, positions - at);
        float mean[kTile], variance[kTile];
        if (p.batch_statistics) {
            double sum[kTile] = {}, m2[kTile] = {};
            for (int64_t n = 0; n < images; n++) {
                const T* x = image<T>(p.src, n) + at;
                for (int64_t i = 0; i < length; i++) {
                    sum[i] += (double)x[i];
                }
            }
            for (int64_t i = 0; i < length; i++) {
                sum[i] /= (double)images;
            }
            for (int64_t n = 0; n < images; n++) {
                const T* x = image<T>(p.src, n) + at;
                for (int64_t i = 0; i < length; i++) {
                    const double d = (double)x[i] - sum[i];
                    m2[i] += d * d;
                }
            }
            for (int64_t i = 0; i < length; i++) {
                mean[i] = (float)sum[i];
                variance[i] = (float)(m2[i] / (double)images);
                set_value(p.mean, at + i, real, mean[i]);
                set_value(p.variance, at + i, real, variance[i]);
                if (p.stage == Stage::Reduce) {
                    set_value(p.running_mean, at + i, real, (float)(sum[i] - (double)mean[i]));
                    set_value(p.running_variance, at + i, real, (float)(m2[i] / (double)images - (double)variance[i]));
                } else if (p.running_mean.data != nullptr && at + i < p.running_mean.padded) {
                    const double f = p.averaging_factor, unbiased = images > 1 ? m2[i] / (double)(images - 1) : m2[i];
                    set_value(p.running_mean, at + i, real, (float)((1 - f) * p.running_mean.data[at + i] + f * sum[i]));
                    set_value(p.running_variance, at + i, real, (float)((1 - f) * p.running_variance.data[at + i] + f * unbiased));
                }
            }
        } else {
            for (int64_t i = 0; i < length; i++) {
                mean[i] = value_at(p.running_mean, at + i, real);
                variance[i] = value_at(p.running_variance, at + i, real);
            }
        }
        if (p.stage == Stage::Reduce || p.dst.data == nullptr) {
            continue;
        }
        Tile t;
        tile_coefficients(t, at, length, real, mean, variance, p.epsilon, p.scale, p.shift);
        for (int64_t n = images - 1; n >= 0; n--) {
            const T* x = image<T>(p.src, n) + at;
            const T* r = p.residual.data != nullptr ? image<T>(p.residual, n) + at : nullptr;
            T* y = image<T>(p.dst, n) + at;
            for (int64_t i = 0; i < length; i++) {
                float v = affine<float>(x[i], t.m[i], t.a[i], t.s[i]);
                v = r != nullptr ? v + r[i] : v;
                y[i] = p.relu && v < 0.0f ? 0.0f : v;
            }
        }
    }
}

template <typename T>
HBN_INLINE float position_gradient(const BatchNormBackward& p, const Tile& t, int64_t n, int64_t at, int64_t i, float x) {
    float g = image<T>(p.diff_dst, n)[at + i];
    if (p.second_diff_dst.data != nullptr) {
        g = (T)(g + (float)image<T>(p.second_diff_dst, n)[at + i]);
    }
    if (!p.relu) {
        return g;
    }
    const float y = p.dst.data != nullptr ? (float)image<T>(p.dst, n)[at + i] : affine<float>(x, t.m[i], t.a[i], t.s[i]);
    return y <= 0.0f ? 0.0f : g;
}

template <typename T> static void backward_positions(const BatchNormBackward& p) {
    const int64_t positions = physical_positions(p.extent, p.src), images = p.extent.images;
    const int64_t real = real_positions(p.per_activation, p.extent, p.scale);
#pragma omp parallel for schedule(static) if (positions * images >= kParallelElements)
    for (int64_t at = 0; at < positions; at += kTile) {
        const int64_t length = minimum(kTile, positions - at);
        Tile t;
        tile_coefficients(t, at, minimum(length, real > at ? real - at : 0), real, p.mean.data + at, p.variance.data + at, p.epsilon,
                          p.scale, p.shift);
        for (int64_t i = real > at ? real - at : 0; i < length; i++) {
            t.m[i] = t.a[i] = t.s[i] = 0.0f;
        }
        double sum[kTile] = {}, dot[kTile] = {};
        for (int64_t n = 0; n < images && p.stage != Stage::Apply; n++) {
            const T* x = image<T>(p.src, n) + at;
            for (int64_t i = 0; i < length; i++) {
                const double g = position_gradient<T>(p, t, n, at, i, x[i]);
                sum[i] += g;
                dot[i] += g * (double)(x[i] - t.m[i]);
            }
        }
        for (int64_t i = 0; i < length; i++) {
            const bool exists = at + i < real;
            const double inverse = exists ? inverse_deviation(p.variance.data[at + i], p.epsilon) : 0;
            if (p.stage == Stage::Apply) {
                sum[i] = value_at(p.diff_shift, at + i, real);
                dot[i] = inverse == 0 ? 0 : value_at(p.diff_scale, at + i, real) / inverse;
            } else {
                set_value(p.diff_scale, at + i, real, (float)(dot[i] * inverse));
                set_value(p.diff_shift, at + i, real, (float)sum[i]);
            }
            const bool through = p.batch_statistics && exists;
            t.k1[i] = through ? (float)(t.a[i] * sum[i] / (double)images) : 0.0f;
            t.k2[i] = through ? (float)(t.a[i] * dot[i] * inverse * inverse / (double)images) : 0.0f;
        }
        if (p.stage == Stage::Reduce) {
            continue;
        }
        for (int64_t n = images - 1; n >= 0; n--) {
            const T* x = image<T>(p.src, n) + at;
            T* dx = image<T>(p.diff_src, n) + at;
            for (int64_t i = 0; i < length; i++) {
                const float v = x[i], g = position_gradient<T>(p, t, n, at, i, v);
                if (p.diff_residual.data != nullptr) {
                    image<T>(p.diff_residual, n)[at + i] = g;
                }
                dx[i] = t.a[i] * g - t.k1[i] - (v - t.m[i]) * t.k2[i];
            }
        }
    }
}

template <typename T> static void forward_layout(const BatchNormForward& p) {
    if (p.per_activation || p.extent.area == 1) {
        forward_positions<T>(p);
    } else if (p.src.block == 16) {
        forward_select<T, 16>(p);
    } else if (p.src.block == 8) {
        forward_select<T, 8>(p);
    } else {
        forward_select<T, 1>(p);
    }
}

template <typename T> static void backward_layout(const BatchNormBackward& p) {
    if (p.per_activation || p.extent.area == 1) {
        backward_positions<T>(p);
    } else if (p.src.block == 16) {
        backward_select<T, 16>(p);
    } else if (p.src.block == 8) {
        backward_select<T, 8>(p);
    } else {
        backward_select<T, 1>(p);
    }
}

static void batch_norm_forward(const BatchNormForward& p) {
    p.src.element == Element::BFloat16 ? forward_layout<Bf16>(p) : forward_layout<float>(p);
}

static void batch_norm_backward(const BatchNormBackward& p) {
    p.src.element == Element::BFloat16 ? backward_layout<Bf16>(p) : backward_layout<float>(p);
}

// For the library's primitive, which knows nothing of a ReLU behind it: the mask alone. Convolutional statistics only.
template <typename T, int L> static void mask_groups(const BatchNormBackward& p, const View& dst) {
    const int64_t images = p.extent.images, channels = p.extent.channels, area = p.extent.area, groups = ceil_div(channels, L);
#pragma omp parallel for schedule(static) collapse(2) if (images * groups * L * area >= kParallelElements)
    for (int64_t n = 0; n < images; n++) {
        for (int64_t g = 0; g < groups; g++) {
            float m[L] = {}, a[L] = {}, s[L] = {};
            for (int l = 0; l < L && g * L + l < channels; l++) {
                const int64_t c = g * L + l;
                m[l] = p.mean.data[c];
                a[l] = (float)((double)p.scale.data[c] * inverse_deviation(p.variance.data[c], p.epsilon));
                s[l] = p.shift.data[c];
            }
            const int64_t at = g * area * L;
            const T* x = image<T>(p.src, n) + at;
            const T* y = p.dst.data != nullptr ? image<T>(p.dst, n) + at : nullptr;
            const T* dy = image<T>(p.diff_dst, n) + at;
            T* out = image<T>(dst, n) + at;
            for (int64_t i = 0; i < area; i++) {
                for (int l = 0; l < L; l++) {
                    const float v = y != nullptr ? (float)y[i * L + l] : affine<float>(x[i * L + l], m[l], a[l], s[l]);
                    out[i * L + l] = v <= 0.0f ? 0.0f : (float)dy[i * L + l];
                }
            }
        }
    }
}

template <typename T> static void mask_layout(const BatchNormBackward& p, const View& dst) {
    if (p.src.block == 16) {
        mask_groups<T, 16>(p, dst);
    } else if (p.src.block == 8) {
        mask_groups<T, 8>(p, dst);
    } else {
        mask_groups<T, 1>(p, dst);
    }
}

static void batch_norm_mask(const BatchNormBackward& p, const View& dst) {
    p.src.element == Element::BFloat16 ? mask_layout<Bf16>(p, dst) : mask_layout<float>(p, dst);
}
