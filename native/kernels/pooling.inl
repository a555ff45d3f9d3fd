// Pooling. A position's block of channels is one vector, or two where vectors are shorter; plain tensors, and slices that start or end
// inside a block, go channel by channel through the same code with vectors of one.

template <int B> struct Lane {
    using F = Float<B>;
    using U = typename Simd<B>::U;
};
template <> struct Lane<1> {
    using F = float;
    using U = uint32_t;
};

template <int B, typename T> HBN_INLINE typename Lane<B>::F get(const T* p) {
    if constexpr (B == 1) {
        return (float)*p;
    } else {
        return load<B>(p);
    }
}

template <int B, typename T> HBN_INLINE void put(T* p, typename Lane<B>::F v) {
    if constexpr (B == 1) {
        *p = v;
    } else {
        store<B>(p, v);
    }
}

// GCC makes one instruction for each element of conversions from and to vectors of bytes, so the two that count are spelled out (with a
// full mask: GCC 12 warns of its own undefined values without one).
template <int B, typename I> HBN_INLINE typename Lane<B>::U get_index(const I* p) {
    using U = typename Lane<B>::U;
    if constexpr (B == 1) {
        return *p;
    }
#if defined(__AVX512F__)
    else if constexpr (B == 16 && sizeof(I) == 1) {
        return (U)_mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_loadu_si128((const __m128i*)p));
    }
#endif
#if defined(__AVX2__)
    else if constexpr (B == 8 && sizeof(I) == 1) {
        return (U)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
    }
#endif
    else {
        U u;
        for (int l = 0; l < B; l++) {
            u[l] = p[l];
        }
        return u;
    }
}

template <int B, typename I> HBN_INLINE void put_index(I* p, typename Lane<B>::U index) {
    if constexpr (B == 1) {
        *p = (I)index;
    }
#if defined(__AVX512F__)
    else if constexpr (B == 16 && sizeof(I) == 1) {
        _mm_storeu_si128((__m128i*)p, _mm512_maskz_cvtepi32_epi8(0xFFFF, (__m512i)index));
    }
#endif
#if defined(__AVX2__)
    else if constexpr (B == 8 && sizeof(I) == 1) {
        const __m256i v = (__m256i)index;
        const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
        _mm_storel_epi64((__m128i*)p, _mm_packus_epi16(words, words));
    }
#endif
    else {
        for (int l = 0; l < B; l++) {
            p[l] = (I)index[l];
        }
    }
}

template <int B> HBN_INLINE typename Lane<B>::U same_index(int64_t index) {
    return typename Lane<B>::U{} + (uint32_t)index;
}

// Along one direction: where windows begin, and which part of them lies inside the image.
struct Axis {
    int64_t src, dst, kernel, stride, pad;

    int64_t start(int64_t o) const { return o * stride - pad; }
    int64_t low(int64_t o) const { return start(o) > 0 ? start(o) : 0; }
    int64_t high(int64_t o) const { return minimum(start(o) + kernel, src); }
    bool inside(int64_t o) const { return start(o) >= 0 && start(o) + kernel <= src; }

    // The windows that lie inside the image: [first_inside, last_inside).
    int64_t first_inside() const { return ceil_div(pad, stride); }
    int64_t last_inside() const { return src + pad < kernel ? 0 : minimum((src + pad - kernel) / stride + 1, dst); }

    // The windows that cover position i: [first_window, last_window).
    int64_t first_window(int64_t i) const { return i + pad < kernel ? 0 : (i + pad - kernel) / stride + 1; }
    int64_t last_window(int64_t i) const { return minimum((i + pad) / stride + 1, dst); }
};

// One vector of channels of one image: neighbouring positions are `step` elements apart.
template <typename T> struct Plane {
    T* data;
    int64_t step;
};

// The larger of two numbers, `first` where they are equal.
template <int B> HBN_INLINE typename Lane<B>::F larger(typename Lane<B>::F later, typename Lane<B>::F first) {
#if defined(__AVX512F__)
    if constexpr (B == 16) {
        return (Float<16>)_mm512_maskz_max_ps(0xFFFF, (__m512)later, (__m512)first);
    }
#endif
#if defined(__AVX2__)
    if constexpr (B == 8) {
        return (Float<8>)_mm256_max_ps((__m256)later, (__m256)first);
    }
#endif
    return later > first ? later : first;
}

// Whether any of N vectors may hold what is not a number. One comparison asks two of them; true where that has no instruction.
template <int B, int N> HBN_INLINE bool may_be_nan([[maybe_unused]] const typename Lane<B>::F (&v)[N]) {
#if defined(__AVX512F__)
    if constexpr (B == 16) {
        unsigned found = 0;
        for (int i = 0; i < N; i += 2) {
            found |= _mm512_cmp_ps_mask((__m512)v[i], (__m512)v[minimum(i + 1, N - 1)], _CMP_UNORD_Q);
        }
        return found != 0;
    }
#endif
#if defined(__AVX2__)
    if constexpr (B == 8) {
        __m256 found = _mm256_setzero_ps();
        for (int i = 0; i < N; i += 2) {
            found = _mm256_or_ps(found, _mm256_cmp_ps((__m256)v[i], (__m256)v[minimum(i + 1, N - 1)], _CMP_UNORD_Q));
        }
        return !_mm256_testz_ps(found, found);
    }
#endif
    return true;
}

template <int B, bool Keep> struct MaxState {
    typename Lane<B>::F value;
    typename Lane<B>::U index;

    // A later value wins when it is larger or not a number: the first of equal ones stays, and so does a NaN.
    HBN_INLINE void take(MaxState& s, typename Lane<B>::F v, int64_t place) {
        const auto wins = (v > s.value) | (v != v);
        s.value = wins ? v : s.value;
        if (Keep) {
            s.index = wins ? same_index<B>(place) : s.index;
        }
    }

    // The same of numbers, in fewer instructions.
    HBN_INLINE void take_number(MaxState& s, typename Lane<B>::F v, int64_t place) {
        if (Keep) {
            s.index = v > s.value ? same_index<B>(place) : s.index;
        }
        s.value = larger<B>(v, s.value);
    }
};

// Calls border(x) for the windows of a row that hang over an edge and inside(first, count) for the others between them; border for all of
// them unless `straight`.
template <typename Border, typename Inside> HBN_INLINE void cut_row(const Axis& w, bool straight, Border border, Inside inside) {
    const int64_t high = straight ? w.last_inside() : 0, low = minimum(w.first_inside(), high);
    for (int64_t x = 0; x < low; x++) {
        border(x);
    }
    if (low < high) {
        inside(low, high - low);
    }
    for (int64_t x = high; x < w.dst; x++) {
        border(x);
    }
}

// `count` windows of K x K that lie inside the image, `next` elements apart, whose rows are `row` apart.
template <int K, typename T, typename I, int B, bool Keep>
static void max_inside(Plane<const T> src, int64_t row, int64_t next, Plane<T> dst, Plane<I> index, int64_t count) {
    using State = MaxState<B, Keep>;
    for (int64_t x = 0; x < count; x++) {
        typename Lane<B>::F v[K * K];
        for (int i = 0; i < K * K; i++) {
            v[i] = get<B>(src.data + i / K * row + i % K * src.step);
        }
        State best{v[0], same_index<B>(0)};
        if (may_be_nan<B>(v)) {
            for (int i = 1; i < K * K; i++) {
                State::take(best, v[i], i);
            }
        } else {
            for (int i = 1; i < K * K; i++) {
                State::take_number(best, v[i], i);
            }
        }
        put<B>(dst.data, best.value);
        src.data += next;
        dst.data += dst.step;
        if (Keep) {
            put_index<B>(index.data, best.index);
            index.data += index.step;
        }
    }
}

template <typename T, typename I, int B, bool Keep>
static void max_rows(const Axis& h, const Axis& w, Plane<const T> src, Plane<T> dst, Plane<I> index, int64_t first, int64_t end) {
    using State = MaxState<B, Keep>;
    const int64_t step = src.step, row = w.src * step;
    for (int64_t y = first; y < end; y++) {
        const int64_t top = h.low(y), bottom = h.high(y);
        const Plane<T> out{dst.data + y * w.dst * dst.step, dst.step};
        const Plane<I> kept{Keep ? index.data + y * w.dst * index.step : nullptr, index.step};
        const bool straight = h.kernel == w.kernel && (w.kernel == 2 || w.kernel == 3) && h.inside(y);
        cut_row(
            w, straight,
            [&](int64_t x) {
                const int64_t left = w.low(x), columns = w.high(x) - left;
                const T* from = src.data + top * row + left * step;
                int64_t place = (top - h.start(y)) * w.kernel + left - w.start(x);
                State best{get<B>(from), same_index<B>(place)};
                for (int64_t i = top; i < bottom; i++, from += row, place += w.kernel) {
                    for (int64_t j = 0; j < columns; j++) {
                        State::take(best, get<B>(from + j * step), place + j);
                    }
                }
                put<B>(out.data + x * out.step, best.value);
                if (Keep) {
                    put_index<B>(kept.data + x * kept.step, best.index);
                }
            },
            [&](int64_t x, int64_t count) {
                const Plane<const T> from{src.data + top * row + w.start(x) * step, step};
                const Plane<T> to{out.data + x * out.step, out.step};
                const Plane<I> index_to{Keep ? kept.data + x * kept.step : nullptr, kept.step};
                w.kernel == 3 ? max_inside<3, T, I, B, Keep>(from, row, w.stride * step, to, index_to, count)
                              : max_inside<2, T, I, B, Keep>(from, row, w.stride * step, to, index_to, count);
            });
    }
}

// Four sums where a row is long enough, so that one addition need not wait for another.
template <typename T, int B>
HBN_INLINE typename Lane<B>::F window_sum(const T* from, int64_t rows, int64_t columns, int64_t row, int64_t step) {
    typename Lane<B>::F a{}, b{}, c{}, d{};
    for (int64_t i = 0; i < rows; i++, from += row) {
        int64_t j = 0;
        for (; j + 4 <= columns; j += 4) {
            a += get<B>(from + j * step);
            b += get<B>(from + (j + 1) * step);
            c += get<B>(from + (j + 2) * step);
            d += get<B>(from + (j + 3) * step);
        }
        for (; j < columns; j++) {
            a += get<B>(from + j * step);
        }
    }
    return (a + b) + (c + d);
}

template <typename T, int B>
static void average_rows(const Axis& h, const Axis& w, bool whole, Plane<const T> src, Plane<T> dst, int64_t first, int64_t end) {
    const int64_t step = src.step, row = w.src * step;
    for (int64_t y = first; y < end; y++) {
        const int64_t top = h.low(y), rows = h.high(y) - top;
        T* out = dst.data + y * w.dst * dst.step;
        auto any = [&](int64_t x) {
            const int64_t left = w.low(x), columns = w.high(x) - left;
            const float count = (float)(whole ? h.kernel * w.kernel : rows * columns);
            put<B>(out + x * dst.step, window_sum<T, B>(src.data + top * row + left * step, rows, columns, row, step) / count);
        };
        const float count = (float)(3 * (whole ? h.kernel : rows));
        cut_row(w, w.kernel == 3 && rows == 3, any, [&](int64_t low, int64_t windows) {
            const T* from = src.data + top * row + w.start(low) * step;
            for (int64_t x = low; x < low + windows; x++, from += w.stride * step) {
                auto three = [&](int64_t j) {
                    return get<B>(from + j * step) + get<B>(from + row + j * step) + get<B>(from + 2 * row + j * step);
                };
                put<B>(out + x * dst.step, (three(0) + three(1) + three(2)) / count);
            }
        });
    }
}

#include "pooling_backward.inl"

template <typename T, int B> HBN_INLINE Plane<T> plane(const View& v, int64_t area, int64_t n, int64_t unit) {
    return v.data == nullptr ? Plane<T>{nullptr, 0} : Plane<T>{channel_at<T>(v, area, n, B * unit), v.block};
}

// All units of work: a vector of channels of an image, cut into bands of rows where there are few of them. `rows` (first, end) works on
// some.
template <int B, typename Rows> static void pool(const Pooling& p, int64_t height, Rows rows) {
    constexpr int64_t kPieces = 256;
    const int64_t units = B == 1 ? p.channels : ceil_div(p.channels, p.src.block) * p.src.block / B; // padding too
    const int64_t bands = minimum(ceil_div(kPieces, p.images * units), ceil_div(height, (int64_t)4)), band = ceil_div(height, bands);
#pragma omp parallel for collapse(3) schedule(static) if (p.images * p.channels * p.src_h * p.src_w >= kParallelElements)
    for (int64_t n = 0; n < p.images; n++) {
        for (int64_t unit = 0; unit < units; unit++) {
            for (int64_t i = 0; i < bands; i++) {
                rows(n, unit, i * band, minimum((i + 1) * band, height));
            }
        }
    }
}

HBN_INLINE Axis rows_of(const Pooling& p) {
    return {p.src_h, p.dst_h, p.kernel_h, p.stride_h, p.pad_top};
}

HBN_INLINE Axis columns_of(const Pooling& p) {
    return {p.src_w, p.dst_w, p.kernel_w, p.stride_w, p.pad_left};
}

template <typename T, typename I, int B> static void pool_forward_of(const Pooling& p) {
    const Axis h = rows_of(p), w = columns_of(p);
    const int64_t src_area = p.src_h * p.src_w, dst_area = p.dst_h * p.dst_w;
    pool<B>(p, p.dst_h, [&](int64_t n, int64_t unit, int64_t first, int64_t end) {
        const Plane<const T> src = plane<const T, B>(p.src, src_area, n, unit);
        const Plane<T> dst = plane<T, B>(p.dst, dst_area, n, unit);
        const Plane<I> index = plane<I, B>(p.index, dst_area, n, unit);
        if (!p.maximum) {
            average_rows<T, B>(h, w, p.whole_window, src, dst, first, end);
        } else if (index.data != nullptr) {
            max_rows<T, I, B, true>(h, w, src, dst, index, first, end);
        } else {
            max_rows<T, I, B, false>(h, w, src, dst, index, first, end);
        }
    });
    if (B == 1) {
        zero_padding({p.images, p.channels, dst_area}, p.dst);
    }
}

template <typename T, typename I, int B> static void pool_backward_of(const Pooling& p) {
    const Axis h = rows_of(p), w = columns_of(p);
    const int64_t src_area = p.src_h * p.src_w, dst_area = p.dst_h * p.dst_w;
    const Shares shares(h, w, p.whole_window);
    pool<B>(p, p.src_h, [&](int64_t n, int64_t unit, int64_t first, int64_t end) {
        const Plane<const T> diff_dst = plane<const T, B>(p.dst, dst_area, n, unit);
        const Plane<T> diff_src = plane<T, B>(p.src, src_area, n, unit);
        if (p.maximum) {
            max_gradient_rows<T, I, B>(h, w, diff_dst, plane<const I, B>(p.index, dst_area, n, unit), diff_src, first, end);
        } else {
            average_gradient_rows<T, B>(shares, diff_dst, diff_src, first, end);
        }
    });
    if (B == 1) {
        zero_padding({p.images, p.channels, src_area}, p.src);
    }
}

// Blocks of channels where both tensors are runs of whole ones.
template <typename T, typename I> static void pool_select(const Pooling& p, bool forward) {
    const Extent channels{p.images, p.channels, 1};
    const int block = p.src.block == p.dst.block && is_run(channels, p.src) && is_run(channels, p.dst) ? p.src.block : 1;
    if (block == 1) {
        forward ? pool_forward_of<T, I, 1>(p) : pool_backward_of<T, I, 1>(p);
    } else if (block >= kWidth) {
        forward ? pool_forward_of<T, I, kWidth>(p) : pool_backward_of<T, I, kWidth>(p);
    } else {
        forward ? pool_forward_of<T, I, 8>(p) : pool_backward_of<T, I, 8>(p);
    }
}

template <typename T> static void pool_select(const Pooling& p, bool forward) {
    p.kernel_h* p.kernel_w <= 256 ? pool_select<T, uint8_t>(p, forward) : pool_select<T, int32_t>(p, forward);
}

static void pool_forward(const Pooling& p) {
    p.src.element == Element::BFloat16 ? pool_select<Bf16>(p, true) : pool_select<float>(p, true);
}

static void pool_backward(const Pooling& p) {
    p.src.element == Element::BFloat16 ? pool_select<Bf16>(p, false) : pool_select<float>(p, false);
}
