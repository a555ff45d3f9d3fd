// Copies between layouts and slices, sums, dropout, input preparation. Fast where images are contiguous runs of whole blocks; element by
// element, never wrong, where a slice starts or ends inside a block.

// Where channel c of an image starts; its positions are `block` floats apart.
HBN_INLINE float* channel_at(const View& v, int64_t area, int64_t n, int64_t c) {
    float* image = v.data + n * v.image_stride;
    if (v.block == 1) {
        return image + c * area;
    }
    const int64_t place = v.lane + c;
    return image + place / v.block * v.block * area + place % v.block;
}

// True when an image of the view is one run of floats that belong to it: whole blocks, or plain.
HBN_INLINE bool is_run(const Extent& e, const View& v) {
    return v.block == 1 || (v.lane == 0 && (e.channels % v.block == 0 || v.owns_padding));
}

HBN_INLINE int64_t run_length(const Extent& e, const View& v) {
    return v.block == 1 ? e.channels * e.area : ceil_div(e.channels, v.block) * v.block * e.area;
}

static void zero_padding(const Extent& e, const View& v) {
    if (v.block == 1 || !v.owns_padding || (v.lane + e.channels) % v.block == 0) {
        return;
    }
    const int64_t place = v.lane + e.channels, tail = place % v.block;
    for (int64_t n = 0; n < e.images; n++) {
        float* block = v.data + n * v.image_stride + place / v.block * v.block * e.area;
        for (int64_t i = 0; i < e.area; i++) {
            for (int64_t l = tail; l < v.block; l++) {
                block[i * v.block + l] = 0.0f;
            }
        }
    }
}

static void copy(const Extent& e, const View& src, const View& dst) {
    const bool parallel = e.images * e.channels * e.area >= kParallelElements;
    if (src.block == dst.block && is_run(e, src) && is_run(e, dst)) {
        // Cut into pieces so that one image also keeps all threads busy.
        const int64_t length = run_length(e, dst), piece = 16384, pieces = ceil_div(length, piece);
#pragma omp parallel for collapse(2) schedule(static) if (parallel)
        for (int64_t n = 0; n < e.images; n++) {
            for (int64_t i = 0; i < pieces; i++) {
                memcpy(dst.data + n * dst.image_stride + i * piece, src.data + n * src.image_stride + i * piece,
                       (size_t)minimum(piece, length - i * piece) * sizeof(float));
            }
        }
        return;
    }
#pragma omp parallel for collapse(2) schedule(static) if (parallel)
    for (int64_t n = 0; n < e.images; n++) {
        for (int64_t c = 0; c < e.channels; c++) {
            const float* from = channel_at(src, e.area, n, c);
            float* to = channel_at(dst, e.area, n, c);
            for (int64_t i = 0; i < e.area; i++) {
                to[i * dst.block] = from[i * src.block];
            }
        }
    }
    zero_padding(e, dst);
}

template <int Sources> static void sum_piece(const float* const* srcs, int64_t count, float* dst, int64_t length) {
    // Four sources at a time keep the loop free of an inner one; more are added in further rounds over cached pieces.
    const float* a = srcs[0];
    const float* b = srcs[1];
    const float* c = Sources > 2 ? srcs[2] : a;
    const float* d = Sources > 3 ? srcs[3] : a;
    int64_t i = 0;
    for (; i + kWidth <= length; i += kWidth) {
        Float<kWidth> v = load<kWidth>(a + i) + load<kWidth>(b + i);
        if (Sources > 2) {
            v += load<kWidth>(c + i);
        }
        if (Sources > 3) {
            v += load<kWidth>(d + i);
        }
        store<kWidth>(dst + i, v);
    }
    for (; i < length; i++) {
        float v = a[i] + b[i];
        if (Sources > 2) {
            v += c[i];
        }
        if (Sources > 3) {
            v += d[i];
        }
        dst[i] = v;
    }
    if (count > 4) {
        for (int64_t s = 4; s < count; s++) {
            for (i = 0; i < length; i++) {
                dst[i] += srcs[s][i];
            }
        }
    }
}

constexpr int64_t kMaximumSources = 64;

static void sum(const Extent& e, const View* srcs, int64_t count, const View& dst) {
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
                const float* from[kMaximumSources];
                for (int64_t s = 0; s < count; s++) {
                    from[s] = srcs[s].data + n * srcs[s].image_stride + i * piece;
                }
                float* to = dst.data + n * dst.image_stride + i * piece;
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
            float* to = channel_at(dst, e.area, n, c);
            for (int64_t i = 0; i < e.area; i++) {
                float v = 0;
                for (int64_t s = 0; s < count; s++) {
                    v += channel_at(srcs[s], e.area, n, c)[i * srcs[s].block];
                }
                to[i * dst.block] = v;
            }
        }
    }
    zero_padding(e, dst);
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

static void dropout(const Dropout& p) {
    const Extent& e = p.extent;
    const uint32_t k0 = (uint32_t)p.seed, k1 = (uint32_t)(p.seed >> 32);
    const uint32_t step_low = (uint32_t)(uint64_t)p.step, step_high = (uint32_t)((uint64_t)p.step >> 32);
#pragma omp parallel for collapse(2) schedule(static) if (e.images * e.channels * e.area >= kParallelElements / 8)
    for (int64_t n = 0; n < e.images; n++) {
        for (int64_t c = 0; c < e.channels; c++) {
            const float* from = channel_at(p.src, e.area, n, c);
            float* to = channel_at(p.dst, e.area, n, c);
            const int64_t first = (n * e.channels + c) * e.area;
            for (int64_t i = 0; i < e.area; i++) {
                const uint64_t index = (uint64_t)(first + i);
                const uint32_t word = philox_word((uint32_t)(index >> 2), p.stream, step_low, step_high, k0, k1, (uint32_t)index & 3);
                to[i * p.dst.block] = word >= p.threshold ? from[i * p.src.block] * p.kept_scale : 0.0f;
            }
        }
    }
    zero_padding(e, p.dst);
}

static void input(const Input& p) {
    const Extent& e = p.extent;
    const int64_t band = 4096, bands = ceil_div(e.area, band);
#pragma omp parallel for collapse(2) schedule(static) if (e.images * e.channels * e.area >= kParallelElements)
    for (int64_t n = 0; n < e.images; n++) {
        for (int64_t b = 0; b < bands; b++) {
            const int64_t start = b * band, end = minimum(start + band, e.area);
            const uint8_t* from = p.src + n * e.area * e.channels;
            for (int64_t c = 0; c < e.channels; c++) {
                float* to = channel_at(p.dst, e.area, n, c);
                const float mean = p.mean[c], scale = p.inverse_deviation[c];
                for (int64_t i = start; i < end; i++) {
                    to[i * p.dst.block] = ((float)from[i * e.channels + c] - mean) * scale;
                }
            }
        }
    }
    zero_padding(e, p.dst);
}
