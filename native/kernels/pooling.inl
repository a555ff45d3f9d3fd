// Pooling. A position's block of channels is one vector, or two where vectors are shorter; plain tensors, and slices that start or end
// inside a block, go channel by channel through the same code with vectors of one. Backward, every element of diff_src collects from the
// windows that cover it: it is written once, needs no clearing, and its sum has one order whatever the number of threads.

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

    // The windows that cover position i: [first_window, last_window).
    int64_t first_window(int64_t i) const { return i + pad < kernel ? 0 : (i + pad - kernel) / stride + 1; }
    int64_t last_window(int64_t i) const { return minimum((i + pad) / stride + 1, dst); }
};

// One vector of channels of one image: neighbouring positions are `step` elements apart.
template <typename T> struct Plane {
    T* data;
    int64_t step;
};

template <typename I, int B, bool Keep> struct MaxState {
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
};

// Calls border(x) for the windows of a row that hang over an edge and inner(x) for the others, from left to right.
template <typename Border, typename Inner> HBN_INLINE void each_window(const Axis& w, Border border, Inner inner) {
    const int64_t low = minimum(ceil_div(w.pad, w.stride), w.dst);
    const int64_t high = w.src + w.pad < w.kernel ? 0 : minimum((w.src + w.pad - w.kernel) / w.stride + 1, w.dst);
    int64_t x = 0;
    for (; x < low; x++) {
        border(x);
    }
    for (; x < high; x++) {
        inner(x);
    }
    for (; x < w.dst; x++) {
        border(x);
    }
}

template <typename T, typename I, int B, bool Keep>
static void max_rows(const Axis& h, const Axis& w, Plane<const T> src, Plane<T> dst, Plane<I> index, int64_t first, int64_t end) {
    using State = MaxState<I, B, Keep>;
    const int64_t step = src.step, row = w.src * step;
    for (int64_t y = first; y < end; y++) {
        const int64_t top = h.low(y), bottom = h.high(y);
        T* out = dst.data + y * w.dst * dst.step;
        I* kept = Keep ? index.data + y * w.dst * index.step : nullptr;
        auto write = [&](int64_t x, const State& best) {
            put<B>(out + x * dst.step, best.value);
            if (Keep) {
                put_index<B>(kept + x * index.step, best.index);
            }
        };
        auto any = [&](int64_t x) {
            const int64_t left = w.low(x), columns = w.high(x) - left;
            const T* from = src.data + top * row + left * step;
            int64_t place = (top - h.start(y)) * w.kernel + left - w.start(x);
            State best{get<B>(from), same_index<B>(place)};
            for (int64_t i = top; i < bottom; i++, from += row, place += w.kernel) {
                for (int64_t j = 0; j < columns; j++) {
                    State::take(best, get<B>(from + j * step), place + j);
                }
            }
            write(x, best);
        };
        if (w.kernel != 3 || h.kernel != 3 || !h.inside(y)) {
            each_window(w, any, any);
            continue;
        }
        each_window(w, any, [&](int64_t x) {
            const T* from = src.data + top * row + w.start(x) * step;
            State best{get<B>(from), same_index<B>(0)};
            State::take(best, get<B>(from + step), 1);
            State::take(best, get<B>(from + 2 * step), 2);
            for (int64_t i = 1; i < 3; i++) {
                State::take(best, get<B>(from + i * row), 3 * i);
                State::take(best, get<B>(from + i * row + step), 3 * i + 1);
                State::take(best, get<B>(from + i * row + 2 * step), 3 * i + 2);
            }
            write(x, best);
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
        if (w.kernel != 3 || rows != 3) {
            each_window(w, any, any);
            continue;
        }
        const float count = (float)(3 * (whole ? h.kernel : rows));
        each_window(w, any, [&](int64_t x) {
            const T* from = src.data + top * row + w.start(x) * step;
            auto three = [&](int64_t j) {
                return get<B>(from + j * step) + get<B>(from + row + j * step) + get<B>(from + 2 * row + j * step);
            };
            put<B>(out + x * dst.step, (three(0) + three(1) + three(2)) / count);
        });
    }
}

// Of one element of diff_src: the windows that cover it, rows [top, bottom) and columns [left, right) of diff_dst.
struct Cover {
    int64_t top, bottom, left, right;
};

// Visits the windows of a cover in order, in straight lines where there are up to three columns of them.
template <int Columns, typename Visit> HBN_INLINE void visit_columns(const Cover& c, Visit visit) {
    for (int64_t i = 0; i < c.bottom - c.top; i++) {
        for (int64_t j = 0; j < (Columns > 0 ? Columns : c.right - c.left); j++) {
            visit(i, j);
        }
    }
}

// visit(i, j): row and column as seen from the cover's first window.
template <typename Visit> HBN_INLINE void visit_windows(const Cover& c, Visit visit) {
    switch (c.right - c.left) {
    case 1:
        return visit_columns<1>(c, visit);
    case 2:
        return visit_columns<2>(c, visit);
    case 3:
        return visit_columns<3>(c, visit);
    default:
        return visit_columns<0>(c, visit);
    }
}

// Calls collect(x, cover) for the elements of row y, from left to right.
template <typename Collect> HBN_INLINE void collect_row(const Axis& h, const Axis& w, int64_t y, Collect collect) {
    Cover cover{h.first_window(y), h.last_window(y), 0, 0};
    int64_t leaves = w.start(0) + w.kernel, enters = w.start(0); // where the leftmost window has ended, where the next one begins
    for (int64_t x = 0; x < w.src; x++) {
        if (leaves <= x) {
            cover.left++;
            leaves += w.stride;
        }
        while (enters <= x && cover.right < w.dst) {
            cover.right++;
            enters += w.stride;
        }
        collect(x, cover);
    }
}

template <typename T, typename I, int B>
static void max_gradient_rows(const Axis& h, const Axis& w, Plane<const T> diff_dst, Plane<const I> index, Plane<T> diff_src, int64_t first,
                              int64_t end) {
    using F = typename Lane<B>::F;
    const int64_t dst_row = w.dst * diff_dst.step, index_row = w.dst * index.step, next_row = h.stride * w.kernel;
    for (int64_t y = first; y < end; y++) {
        T* out = diff_src.data + y * w.src * diff_src.step;
        collect_row(h, w, y, [&](int64_t x, const Cover& cover) {
            const int64_t at = cover.top * w.dst + cover.left, place = (y - h.start(cover.top)) * w.kernel + x - w.start(cover.left);
            const T* gradients = diff_dst.data + at * diff_dst.step;
            const I* winners = index.data + at * index.step;
            F sum{};
            visit_windows(cover, [&](int64_t i, int64_t j) {
                const auto won =
                    get_index<B>(winners + i * index_row + j * index.step) == same_index<B>(place - i * next_row - j * w.stride);
                sum += won ? get<B>(gradients + i * dst_row + j * diff_dst.step) : F{};
            });
            put<B>(out + x * diff_src.step, sum);
        });
    }
}

// What averages multiply gradients by: one over the positions a window has inside the image (or altogether). Looked up by how many rows
// that are and by the window's column, where those are few.
struct Shares {
    static constexpr int64_t kRows = 8, kColumns = 128;
    const Axis h, w;
    const bool whole, looked_up;
    float table[kRows][kColumns];

    Shares(const Axis& h, const Axis& w, bool whole) : h(h), w(w), whole(whole), looked_up(h.kernel <= kRows && w.dst <= kColumns) {
        for (int64_t rows = 1; looked_up && rows <= h.kernel; rows++) {
            for (int64_t x = 0; x < w.dst; x++) {
                table[rows - 1][x] = 1.0f / (float)(rows * (w.high(x) - w.low(x)));
            }
        }
    }

    float of(int64_t y, int64_t x) const { return 1.0f / (float)((h.high(y) - h.low(y)) * (w.high(x) - w.low(x))); }
};

template <typename T, int B>
static void average_gradient_rows(const Shares& shares, Plane<const T> diff_dst, Plane<T> diff_src, int64_t first, int64_t end) {
    using F = typename Lane<B>::F;
    const Axis h = shares.h, w = shares.w;
    const int64_t dst_row = w.dst * diff_dst.step;
    const float all = 1.0f / (float)(h.kernel * w.kernel);
    for (int64_t y = first; y < end; y++) {
        bool whole_rows = true;
        for (int64_t i = h.first_window(y); i < h.last_window(y); i++) {
            whole_rows = whole_rows && h.inside(i);
        }
        const float* of_row[Shares::kRows] = {};
        for (int64_t i = h.first_window(y); shares.looked_up && i < h.last_window(y); i++) {
            of_row[i - h.first_window(y)] = shares.table[h.high(i) - h.low(i) - 1];
        }
        Cover last{0, 0, -1, -1};
        F sum{};
        T* out = diff_src.data + y * w.src * diff_src.step;
        collect_row(h, w, y, [&](int64_t x, const Cover& cover) {
            // The same windows, the same value: of a global average all positions.
            if (cover.left != last.left || cover.right != last.right) {
                last = cover;
                sum = F{};
                const T* gradients = diff_dst.data + (cover.top * w.dst + cover.left) * diff_dst.step;
                if (shares.whole || (whole_rows && (cover.left >= cover.right || (w.inside(cover.left) && w.inside(cover.right - 1))))) {
                    visit_windows(cover, [&](int64_t i, int64_t j) { sum += get<B>(gradients + i * dst_row + j * diff_dst.step); });
                    sum *= all;
                } else if (shares.looked_up) {
                    visit_windows(cover, [&](int64_t i, int64_t j) {
                        sum += get<B>(gradients + i * dst_row + j * diff_dst.step) * of_row[i][cover.left + j];
                    });
                } else {
                    visit_windows(cover, [&](int64_t i, int64_t j) {
                        sum += get<B>(gradients + i * dst_row + j * diff_dst.step) * shares.of(cover.top + i, cover.left + j);
                    });
                }
            }
            put<B>(out + x * diff_src.step, sum);
        });
    }
}

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
