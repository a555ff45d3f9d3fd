// Copies between layouts and slices, sums, dropout, input preparation. Fast where images are contiguous runs of whole blocks; element by
// element, never wrong, where a slice starts or ends inside a block.

// Where channel c of an image starts; its positions are `block` elements apart.
template <typename T> HBN_INLINE T* channel_at(const View& v, int64_t area, int64_t n, int64_t c) {
    T* at = image<T>(v, n);
    if (v.block == 1) {
        return at + c * area;
    }
    const int64_t place = v.lane + c;
    return at + place / v.block * v.block * area + place % v.block;
}

// True when an image of the view is one run of elements that belong to it: whole blocks, or plain.
HBN_INLINE bool is_run(const Extent& e, const View& v) {
    return v.block == 1 || (v.lane == 0 && (e.channels % v.block == 0 || v.owns_padding));
}

HBN_INLINE int64_t run_length(const Extent& e, const View& v) {
    return v.block == 1 ? e.channels * e.area : ceil_div(e.channels, v.block) * v.block * e.area;
}

template <typename T> static void zero_padding_of(const Extent& e, const View& v) {
    const int64_t place = v.lane + e.channels, tail = place % v.block;
    for (int64_t n = 0; n < e.images; n++) {
        T* block = image<T>(v, n) + place / v.block * v.block * e.area;
        for (int64_t i = 0; i < e.area; i++) {
            for (int64_t l = tail; l < v.block; l++) {
                block[i * v.block + l] = 0.0f;
            }
        }
    }
}

static void zero_padding(const Extent& e, const View& v) {
    if (v.block == 1 || !v.owns_padding || (v.lane + e.channels) % v.block == 0) {
        return;
    }
    v.element == Element::BFloat16 ? zero_padding_of<Bf16>(e, v) : zero_padding_of<float>(e, v);
}

static void copy_run(const float* src, float* dst, int64_t length) {
    memcpy(dst, src, (size_t)length * sizeof(float));
}

static void copy_run(const Bf16* src, Bf16* dst, int64_t length) {
    memcpy(dst, src, (size_t)length * sizeof(Bf16));
}

template <typename S, typename D> static void copy_run(const S* src, D* dst, int64_t length) {
    int64_t i = 0;
    for (; i + kWidth <= length; i += kWidth) {
        store<kWidth>(dst + i, load<kWidth>(src + i));
    }
    for (; i < length; i++) {
        dst[i] = (float)src[i];
    }
}

template <typename S, typename D> static void copy_between(const Extent& e, const View& src, const View& dst) {
    const bool parallel = e.images * e.channels * e.area >= kParallelElements;
    if (src.block == dst.block && is_run(e, src) && is_run(e, dst)) {
        // Cut into pieces so that one image also keeps all threads busy.
        const int64_t length = run_length(e, dst), piece = 16384, pieces = ceil_div(length, piece);
#pragma omp parallel for collapse(2) schedule(static) if (parallel)
        for (int64_t n = 0; n < e.images; n++) {
            for (int64_t i = 0; i < pieces; i++) {
                copy_run(image<S>(src, n) + i * piece, image<D>(dst, n) + i * piece, minimum(piece, length - i * piece));
            }
        }
        return;
    }
#pragma omp parallel for collapse(2) schedule(static) if (parallel)
    for (int64_t n = 0; n < e.images; n++) {
        for (int64_t c = 0; c < e.channels; c++) {
            const S* from = channel_at<S>(src, e.area, n, c);
            D* to = channel_at<D>(dst, e.area, n, c);
            for (int64_t i = 0; i < e.area; i++) {
                to[i * dst.block] = (float)from[i * src.block];
            }
        }
    }
    zero_padding(e, dst);
}

static void copy(const Extent& e, const View& src, const View& dst) {
    if (src.element == Element::BFloat16) {
        dst.element == Element::BFloat16 ? copy_between<Bf16, Bf16>(e, src, dst) : copy_between<Bf16, float>(e, src, dst);
    } else {
        dst.element == Element::BFloat16 ? copy_between<float, Bf16>(e, src, dst) : copy_between<float, float>(e, src, dst);
    }
}

// All sources are added before the one rounding of the store, four of them in the loop that has no inner one.
template <int Sources, typename T> static void sum_piece(const T* const* srcs, int64_t count, T* dst, int64_t length) {
    const T* a = srcs[0];
    const T* b = srcs[1];
    const T* c = Sources > 2 ? srcs[2] : a;
    const T* d = Sources > 3 ? srcs[3] : a;
    int64_t i = 0;
    for (; i + kWidth <= length; i += kWidth) {
        Float<kWidth> v = load<kWidth>(a + i) + load<kWidth>(b + i);
        if (Sources > 2) {
            v += load<kWidth>(c + i);
        }
        if (Sources > 3) {
            v += load<kWidth>(d + i);
            for (int64_t s = 4; s < count; s++) {
                v += load<kWidth>(srcs[s] + i);
            }
        }
        store<kWidth>(dst + i, v);
    }
    for (; i < length; i++) {
        float v = (float)a[i] + (float)b[i];
        for (int64_t s = 2; s < count; s++) {
            v += (float)srcs[s][i];
        }
        dst[i] = v;
    }
}

constexpr int64_t kMaximumSources = 64;

template <typename T> static void sum_of(const Extent& e, const View* srcs, int64_t count, const View& dst) {
    const bool parallel = e.images * e.channels * e.area >= kParallelElements;
    bool runs = is_run(e, dst);
    for (int64_t s = 0; s < count; s++) {
        runs = runs && is_run(e, srcs[s]) && srcs[s].block == dst.block;
    }
    if (runs) {
        const int64_t length = run_length(e, dst), piece = 4096, pieces = ceil_div(length, piece);
#pragma omp parallel for collapse(2) schedule(static) if (parallel)
        for (int64_t n = 0; n < e.images; n++) {
            for (int64_t i = 0; i < pieces; i++) {
                const T* from[kMaximumSources];
                for (int64_t s = 0; s < count; s++) {
                    from[s] = image<T>(srcs[s], n) + i * piece;
                }
                T* to = image<T>(dst, n) + i * piece;
                const int64_t part = minimum(piece, length - i * piece);
                if (count == 2) {
                    sum_piece<2>(from, count, to, part);
                } else if (count == 3) {
                    sum_piece<3>(from, count, to, part);
                } else {
                    sum_piece<4>(from, count, to, part);
                }
            }
        }
        return;
    }
#pragma omp parallel for collapse(2) schedule(static) if (parallel)
    for (int64_t n = 0; n < e.images; n++) {
        for (int64_t c = 0; c < e.channels; c++) {
            T* to = channel_at<T>(dst, e.area, n, c);
            for (int64_t i = 0; i < e.area; i++) {
                float v = 0;
                for (int64_t s = 0; s < count; s++) {
                    v += (float)channel_at<T>(srcs[s], e.area, n, c)[i * srcs[s].block];
                }
                to[i * dst.block] = v;
            }
        }
    }
    zero_padding(e, dst);
}

static void sum(const Extent& e, const View* srcs, int64_t count, const View& dst) {
    dst.element == Element::BFloat16 ? sum_of<Bf16>(e, srcs, count, dst) : sum_of<float>(e, srcs, count, dst);
}

// Word `lane` of Philox4x32-10 at counter (block, stream, step) and a key.
HBN_INLINE uint32_t philox_word(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1, uint32_t lane) {
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c0 = n0, c1 = (uint32_t)p1, c2 = n2, c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return lane == 0 ? c0 : lane == 1 ? c1 : lane == 2 ? c2 : c3;
}

template <typename T> static void dropout_of(const Dropout& p) {
    const Extent& e = p.extent;
    const uint32_t k0 = (uint32_t)p.seed, k1 = (uint32_t)(p.seed >> 32);
    const uint32_t step_low = (uint32_t)(uint64_t)p.step, step_high = (uint32_t)((uint64_t)p.step >> 32);
#pragma omp parallel for collapse(2) schedule(static) if (e.images * e.channels * e.area >= kParallelElements / 8)
    for (int64_t n = 0; n < e.images; n++) {
        for (int64_t c = 0; c < e.channels; c++) {
            const T* from = channel_at<T>(p.src, e.area, n, c);
            T* to = channel_at<T>(p.dst, e.area, n, c);
            const int64_t first = (n * e.channels + c) * e.area;
            for (int64_t i = 0; i < e.area; i++) {
                const uint64_t index = (uint64_t)(first + i);
                const uint32_t word = philox_word((uint32_t)(index >> 2), p.stream, step_low, step_high, k0, k1, (uint32_t)index & 3);
                to[i * p.dst.block] = word >= p.threshold ? (float)from[i * p.src.block] * p.kept_scale : 0.0f;
            }
        }
    }
    zero_padding(e, p.dst);
}

static void dropout(const Dropout& p) {
    p.dst.element == Element::BFloat16 ? dropout_of<Bf16>(p) : dropout_of<float>(p);
}

template <typename T> static void input_of(const Input& p) {
    const Extent& e = p.extent;
    const int64_t band = 4096, bands = ceil_div(e.area, band);
#pragma omp parallel for collapse(2) schedule(static) if (e.images * e.channels * e.area >= kParallelElements)
    for (int64_t n = 0; n < e.images; n++) {
        for (int64_t b = 0; b < bands; b++) {
            const int64_t start = b * band, end = minimum(start + band, e.area);
            const uint8_t* from = p.src + n * e.area * e.channels;
            for (int64_t c = 0; c < e.channels; c++) {
                T* to = channel_at<T>(p.dst, e.area, n, c);
                const float mean = p.mean[c], scale = p.inverse_deviation[c];
                if (sizeof(T) == sizeof(float) || p.dst.block != 1) {
                    for (int64_t i = start; i < end; i++) {
                        to[i * p.dst.block] = ((float)from[i * e.channels + c] - mean) * scale;
                    }
                    continue;
                }
                // Rounding by hand keeps that loop from vectorising: some values at a time, then rounded together.
                constexpr int64_t piece = 64;
                for (int64_t i = start; i < end; i += piece) {
                    const int64_t length = minimum(piece, end - i);
                    float values[piece];
                    for (int64_t j = 0; j < length; j++) {
                        values[j] = ((float)from[(i + j) * e.channels + c] - mean) * scale;
                    }
                    copy_run(values, to + i, length);
                }
            }
        }
    }
    zero_padding(e, p.dst);
}

static void input(const Input& p) {
    p.dst.element == Element::BFloat16 ? input_of<Bf16>(p) : input_of<float>(p);
}
