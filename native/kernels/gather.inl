// Direct convolution as a product of matrices, in single precision: what a block of positions sees through each tap is gathered into the
// cache and multiplied with the filters there. For windows that move by more than one position, and for passes over large maps, where
// the library's loops over rows leave much of a processor's speed (decision 027).
//
// Forward:          dst[p, o]      = sum over taps t and channels c of src[p seen through t, c] * weights[o, c, t]
// Backward-data:    the same of diffDst, where the positions of diffSrc that see the same taps (a phase) make one product
// Backward-weights: diffWeights[o, c, t] = sum over positions p of src[p seen through t, c] * diffDst[p, o]

#if defined(__AVX2__)

constexpr int64_t kChunkBlocks = 32; // blocks of channels whose filters, a panel of them, stay in the first-level cache

// The positions of dst that see the same taps, as a grid of their own, and where the taps look in src.
struct Phase {
    int64_t h, w, count;                      // positions of an image, and of all
    int64_t first_y, first_x, step_y, step_x; // where they lie in dst
    int64_t stride_y, stride_x;               // from one to the next in src
    int64_t taps;
    int64_t y[kMostTaps], x[kMostTaps], tap[kMostTaps]; // in src, of position (0, 0); number in the filter
};

// Phase (py, px) of diffSrc; the only one of dst.
static Phase phase_of(const GatherShape& s, bool backward_data, int64_t py, int64_t px) {
    Phase f{};
    f.step_y = backward_data ? s.stride_h : 1;
    f.step_x = backward_data ? s.stride_w : 1;
    f.stride_y = backward_data ? 1 : s.stride_h;
    f.stride_x = backward_data ? 1 : s.stride_w;
    f.first_y = py;
    f.first_x = px;
    f.h = s.dst_h > py ? ceil_div(s.dst_h - py, f.step_y) : 0;
    f.w = s.dst_w > px ? ceil_div(s.dst_w - px, f.step_x) : 0;
    f.count = s.images * f.h * f.w;
    for (int64_t ky = 0; ky < s.kernel_h; ky++) {
        for (int64_t kx = 0; kx < s.kernel_w; kx++) {
            const int64_t y = backward_data ? py + s.pad_top - ky : ky - s.pad_top,
                          x = backward_data ? px + s.pad_left - kx : kx - s.pad_left;
            if (backward_data && (y % s.stride_h != 0 || x % s.stride_w != 0)) {
                continue;
            }
            f.y[f.taps] = backward_data ? y / s.stride_h : y;
            f.x[f.taps] = backward_data ? x / s.stride_w : x;
            f.tap[f.taps++] = ky * s.kernel_w + kx;
        }
    }
    return f;
}

// Calls run(n, i, j, first, length) for the pieces of rows that positions [start, start + count) of a phase are: image, row, column, and
// which of the positions they are.
template <typename Run> HBN_INLINE void for_rows(const Phase& f, int64_t start, int64_t count, Run run) {
    int64_t n = start / (f.h * f.w), i = start / f.w % f.h, j = start % f.w;
    for (int64_t done = 0; done < count;) {
        const int64_t length = minimum(count - done, f.w - j);
        run(n, i, j, done, length);
        done += length;
        j = 0;
        if (++i == f.h) {
            i = 0;
            n++;
        }
    }
}

// Gathers what positions see of blocks [first, last), counted through the taps: block b, position p at (b - first) * row + p lanes.
template <Reading K, typename T>
static void gather_reading(const GatherShape& s, const View& src, const Normalization& normalization, const Phase& f, int64_t start,
                           int64_t count, int64_t first, int64_t last, float* v) {
    const int64_t blocks = ceil_div(s.src_channels, (int64_t)kLanes), plane = s.src_h * s.src_w * kLanes;
    for (int64_t b = first; b < last; b++, v += s.row) {
        const int64_t t = b / blocks, c = b % blocks;
        BlockCoefficients k{};
        if (K != Reading::Raw) {
            k = {load<kLanes>(normalization.mean + c * kLanes), load<kLanes>(normalization.factor + c * kLanes),
                 load<kLanes>(normalization.shift + c * kLanes)};
        }
        for_rows(f, start, count, [&](int64_t n, int64_t i, int64_t j, int64_t done, int64_t length) {
            const int64_t y = i * f.stride_y + f.y[t];
            float* to = v + done * kLanes;
            if (y < 0 || y >= s.src_h) {
                for (int64_t p = 0; p < length; p++) {
                    store<kLanes>(to + p * kLanes, Vector{});
                }
                return;
            }
            const T* from = image<const T>(src, n) + c * plane + y * s.src_w * kLanes;
            int64_t x = j * f.stride_x + f.x[t];
            for (int64_t p = 0; p < length; p++, x += f.stride_x) {
                store<kLanes>(to + p * kLanes, x >= 0 && x < s.src_w ? read_src<K>(from + x * kLanes, k) : Vector{});
            }
        });
    }
}

template <typename T>
static void gather_of(const GatherShape& s, const View& src, const Normalization& normalization, const Phase& f, int64_t start,
                      int64_t count, int64_t first, int64_t last, float* v) {
    const auto how = normalization.mean == nullptr ? gather_reading<Reading::Raw, T>
                     : normalization.relu          ? gather_reading<Reading::AffineRelu, T>
                                                   : gather_reading<Reading::Affine, T>;
    how(s, src, normalization, f, start, count, first, last, v);
}

static void gather(const GatherShape& s, const View& src, const Normalization& normalization, const Phase& f, int64_t start, int64_t count,
                   int64_t first, int64_t last, float* v) {
    src.element == Element::BFloat16 ? gather_of<Bf16>(s, src, normalization, f, start, count, first, last, v)
                                     : gather_of<float>(s, src, normalization, f, start, count, first, last, v);
}

// From one output channel to the next, where a block of ours lies in one block of theirs or they are in no blocks; else 0.
HBN_INLINE int64_t output_step(const Weights& w) {
    return w.block_o == 1 ? w.outer_o : w.block_o % kLanes == 0 ? w.inner_o : 0;
}

// The filters of a phase from block b of src, counted through the taps, to a panel: [block][src channel][panel's lanes].
static void gather_filters(const GatherForward& g, const Phase& f, int64_t first, int64_t width, int64_t b, float* u) {
    const GatherShape& s = g.shape;
    const Weights& w = g.weights;
    const int64_t blocks = ceil_div(s.src_channels, (int64_t)kLanes), cb = b % blocks, tap = f.tap[b / blocks];
    const int64_t real_c = s.src_channels - cb * kLanes, step = output_step(w);
    const float* of_tap = w.data + tap / s.kernel_w * w.row + tap % s.kernel_w * w.column;
    float* to = u + b * kLanes * width * kLanes;
    for (int64_t c = 0; c < kLanes; c++) {
        const float* of_channel = of_tap + input_at(w, cb * kLanes + (c < real_c ? c : 0));
        for (int64_t l = 0; l < width; l++, to += kLanes) {
            const int64_t o = (first + l) * kLanes, real_o = c < real_c ? s.dst_channels - o : 0;
            if (step == 1 && real_o >= kLanes) {
                store<kLanes>(to, load<kLanes>(of_channel + output_at(w, o)));
            } else if (step != 0 && real_o >= kLanes) {
                const float* from = of_channel + output_at(w, o);
                for (int k = 0; k < kLanes; k++) {
                    to[k] = from[k * step];
                }
            } else {
                for (int k = 0; k < kLanes; k++) {
                    to[k] = k < real_o ? of_channel[output_at(w, o + k)] : 0.0f;
                }
            }
        }
    }
}

// A panel's products: m[N blocks][position][lanes].
template <int N>
static void multiply_gathered(int64_t row, int64_t count, int64_t blocks, const float* v, const float* u, float* m, int64_t m_block) {
    constexpr int R = kAccumulators / N;
    for (int64_t b = 0; b < blocks; b += kChunkBlocks) {
        for (int64_t i = 0; i < count; i += R) {
            multiply_tiles<R, N>(v + b * row + i * kLanes, row, minimum(kChunkBlocks, blocks - b), u + b * kLanes * N * kLanes,
                                 m + i * kLanes, m_block, b > 0);
        }
    }
}

template <typename T>
static void store_gathered(const GatherForward& g, const Phase& f, int64_t start, int64_t count, int64_t b, const float* m) {
    const GatherShape& s = g.shape;
    const int64_t real = s.dst_channels - b * kLanes, plane = s.dst_h * s.dst_w * kLanes;
    const Vector keep = first_lanes(nullptr, real), bias = g.bias == nullptr ? Vector{} : first_lanes(g.bias + b * kLanes, real);
    const bool partial = real < kLanes, relu = g.relu;
    for_rows(f, start, count, [&](int64_t n, int64_t i, int64_t j, int64_t done, int64_t length) {
        const int64_t at = ((f.first_y + i * f.step_y) * s.dst_w + f.first_x + j * f.step_x) * kLanes;
        T* to = image<T>(g.dst, n) + b * plane + at;
        const T* residual = g.residual.data == nullptr ? nullptr : image<const T>(g.residual, n) + b * plane + at;
        for (int64_t p = 0; p < length; p++) {
            Vector o = (f.taps == 0 ? Vector{} : load<kLanes>(m + (done + p) * kLanes)) + bias;
            o = residual != nullptr ? o + load<kLanes>(residual + p * f.step_x * kLanes) : o;
            o = relu ? (o < 0.0f ? Vector{} : o) : o;
            store<kLanes>(to + p * f.step_x * kLanes, partial ? (keep != 0.0f ? o : Vector{}) : o);
        }
    });
}

// Every element is one sum over taps and channels in their order, whatever the threads and the blocks of positions.
static void gather_forward(const GatherForward& g) {
    const GatherShape& s = g.shape;
    const Panels panels(s.dst_channels);
    const int64_t channel_blocks = ceil_div(s.src_channels, (int64_t)kLanes);
    const auto store_block = g.dst.element == Element::BFloat16 ? store_gathered<Bf16> : store_gathered<float>;
    const int64_t phases_y = g.backward_data ? s.stride_h : 1, phases_x = g.backward_data ? s.stride_w : 1;
#pragma omp parallel num_threads(s.threads)
    {
        float *v = s.own + omp_get_thread_num() * s.own_floats, *m = v + s.own_floats - s.tile * 3 * kLanes;
        float* filters = s.shared;
        for (int64_t ph = 0; ph < phases_y * phases_x; ph++) {
            const Phase f = phase_of(s, g.backward_data, ph / phases_x, ph % phases_x);
            const int64_t blocks = f.taps * channel_blocks, per_block = blocks * kLanes * kLanes;
#pragma omp for schedule(static) collapse(2)
            for (int64_t p = 0; p < panels.count; p++) {
                for (int64_t b = 0; b < blocks; b++) {
                    gather_filters(g, f, panels.first(p), panels.width(p), b, filters + panels.first(p) * per_block);
                }
            }
#pragma omp for schedule(static) nowait
            for (int64_t k = 0; k < ceil_div(f.count, s.tile); k++) {
                const int64_t start = k * s.tile, count = minimum(s.tile, f.count - start);
                gather(s, g.src, g.normalization, f, start, count, 0, blocks, v);
                for (int64_t p = 0; p < panels.count; p++) {
                    const int64_t first = panels.first(p), width = panels.width(p);
                    const float* u = filters + first * per_block;
                    width == 3   ? multiply_gathered<3>(s.row, count, blocks, v, u, m, s.tile * kLanes)
                    : width == 2 ? multiply_gathered<2>(s.row, count, blocks, v, u, m, s.tile * kLanes)
                                 : multiply_gathered<1>(s.row, count, blocks, v, u, m, s.tile * kLanes);
                    for (int64_t j = 0; j < width; j++) {
                        store_block(g, f, start, count, first + j, m + j * s.tile * kLanes);
                    }
                }
            }
            filters += panels.blocks * per_block;
        }
    }
}

// The parts' sums of a panel of gradients from block b of src, counted through the taps, added and stored; padded channels become zeros.
static void store_gathered_gradient(const GatherBackwardWeights& g, int64_t first, int64_t width, int64_t b, const float* u, int64_t part) {
    const GatherShape& s = g.shape;
    const Weights& w = g.diff_weights;
    const int64_t blocks = ceil_div(s.src_channels, (int64_t)kLanes), cb = b % blocks, tap = b / blocks;
    const int64_t room_o = ceil_div(s.dst_channels, w.block_o) * w.block_o, room_c = ceil_div(s.src_channels, w.block_c) * w.block_c;
    float* of_tap = w.data + tap / s.kernel_w * w.row + tap % s.kernel_w * w.column;
    for (int64_t c = 0; c < minimum((int64_t)kLanes, room_c - cb * kLanes); c++) {
        float* of_channel = of_tap + input_at(w, cb * kLanes + c);
        for (int64_t l = 0; l < width; l++) {
            const int64_t o = (first + l) * kLanes, real = cb * kLanes + c < s.src_channels ? s.dst_channels - o : 0;
            const float* at = u + ((b * kLanes + c) * width + l) * kLanes;
            Vector sum = load<kLanes>(at);
            for (int64_t i = 1; i < s.parts; i++) {
                sum += load<kLanes>(at + i * part);
            }
            if (output_step(w) == 1 && real >= kLanes) {
                store<kLanes>(of_channel + output_at(w, o), sum);
                continue;
            }
            for (int64_t k = 0; k < minimum((int64_t)kLanes, room_o - o); k++) {
                of_channel[output_at(w, o + k)] = k < real ? sum[k] : 0.0f;
            }
        }
    }
}

template <int N>
static void multiply_gathered_gradients(int64_t row, int64_t count, int64_t first, int64_t last, const float* v, const float* z, float* u,
                                        bool add) {
    constexpr int R = N == 1 ? kLanes : kLanes / 2;
    for (int64_t b = first; b < last; b++) {
        for (int c = 0; c < kLanes; c += R) {
            multiply_channels<R, N>(v + (b - first) * row + c, z, count, u + (b * kLanes + c) * N * kLanes, add);
        }
    }
}

// A panel's blocks of diffDst at these positions: z is [position][panel's lanes].
template <typename T>
static void gather_diff_dst(const GatherBackwardWeights& g, const Phase& f, int64_t start, int64_t count, int64_t first, int64_t width,
                            float* z) {
    const GatherShape& s = g.shape;
    const int64_t plane = s.dst_h * s.dst_w * kLanes;
    for_rows(f, start, count, [&](int64_t n, int64_t i, int64_t j, int64_t done, int64_t length) {
        const T* from = image<const T>(g.diff_dst, n) + first * plane + (i * s.dst_w + j) * kLanes;
        for (int64_t q = 0; q < length; q++) {
            for (int64_t l = 0; l < width; l++) {
                store<kLanes>(z + ((done + q) * width + l) * kLanes, load<kLanes>(from + l * plane + q * kLanes));
            }
        }
    });
}

// Positions are cut into parts as the shape decides; a thread owns some blocks of channels of one part.
static void gather_backward_weights(const GatherBackwardWeights& g) {
    const GatherShape& s = g.shape;
    const Panels panels(s.dst_channels);
    const Phase f = phase_of(s, false, 0, 0);
    const int64_t blocks = f.taps * ceil_div(s.src_channels, (int64_t)kLanes), per_block = blocks * kLanes * kLanes;
    const int64_t part = panels.blocks * per_block;
    const auto gather_diff = g.diff_dst.element == Element::BFloat16 ? gather_diff_dst<Bf16> : gather_diff_dst<float>;
#pragma omp parallel num_threads(s.threads)
    {
        float *v = s.own + omp_get_thread_num() * s.own_floats, *z = v + s.own_floats - s.tile * 3 * kLanes;
#pragma omp for schedule(static) collapse(2)
        for (int64_t k = 0; k < s.parts; k++) {
            for (int64_t group = 0; group < s.groups; group++) {
                const int64_t first = cut(blocks, s.groups, group), last = cut(blocks, s.groups, group + 1);
                const int64_t begin = cut(f.count, s.parts, k), end = cut(f.count, s.parts, k + 1);
                for (int64_t start = begin; start < end; start += s.tile) {
                    const int64_t count = minimum(s.tile, end - start);
                    gather(s, g.src, g.normalization, f, start, count, first, last, v);
                    for (int64_t p = 0; p < panels.count; p++) {
                        const int64_t block = panels.first(p), width = panels.width(p);
                        float* u = s.shared + k * part + block * per_block;
                        gather_diff(g, f, start, count, block, width, z);
                        const bool add = start > begin;
                        width == 3   ? multiply_gathered_gradients<3>(s.row, count, first, last, v, z, u, add)
                        : width == 2 ? multiply_gathered_gradients<2>(s.row, count, first, last, v, z, u, add)
                                     : multiply_gathered_gradients<1>(s.row, count, first, last, v, z, u, add);
                    }
                }
            }
        }
#pragma omp for schedule(static) collapse(2)
        for (int64_t p = 0; p < panels.count; p++) {
            for (int64_t b = 0; b < blocks; b++) {
                store_gathered_gradient(g, panels.first(p), panels.width(p), b, s.shared + panels.first(p) * per_block, part);
            }
        }
    }
}

#else

constexpr void (*gather_forward)(const GatherForward&) = nullptr;
constexpr void (*gather_backward_weights)(const GatherBackwardWeights&) = nullptr;

#endif
