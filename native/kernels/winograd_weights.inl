// Backward-weights by the algorithm of winograd.inl: the transformed gradient of a filter is the sum over all tiles of
// (B^T src B) * (A diffDst A^T), and diffWeights = G^T of it.
//
// The tiles are cut into parts whose number the shape decides, each part is summed in the order of its tiles, and the parts are added in
// their order: neither threads nor the cut of the channels show in the result. A thread owns a rectangle of channels of one part.

#if defined(__AVX2__)

// 4 gradients of outputs to 6 points: one dimension of A.
HBN_INLINE void transform_diff_dst(const Vector* y, int from, Vector* z, int to) {
    const Vector even1 = y[0] + kP2 * y[2 * from], odd1 = kP * y[from] + kP3 * y[3 * from];
    const Vector even2 = y[0] + kQ2 * y[2 * from], odd2 = kQ * y[from] + kQ3 * y[3 * from];
    z[0] = y[0];
    z[to] = even1 + odd1;
    z[2 * to] = even1 - odd1;
    z[3 * to] = even2 + odd2;
    z[4 * to] = even2 - odd2;
    z[5 * to] = y[3 * from];
}

// 6 points to 3 taps: one dimension of G^T.
HBN_INLINE void transform_diff_weights(const Vector* u, int from, Vector* g, int to) {
    const Vector sum1 = kG1 * (u[from] + u[2 * from]), sum2 = kG2 * (u[3 * from] + u[4 * from]);
    g[0] = kG0 * u[0] + sum1 + sum2;
    g[to] = kG1 * kP * (u[from] - u[2 * from]) + kG2 * kQ * (u[3 * from] - u[4 * from]);
    g[2 * to] = kP2 * sum1 + kQ2 * sum2 + u[5 * from];
}

// Transforms the panel's blocks of diffDst for `count` tiles: z is [point][tile][panel's lanes].
template <typename T>
static void transform_diff_dst_panel(const WinogradBackwardWeights& f, const Tiles& tiles, int64_t start, int64_t count, int64_t first,
                                     int64_t width, float* z) {
    const WinogradShape& s = f.shape;
    const int64_t plane = s.dst_h * s.dst_w * kLanes;
    Place at(tiles, start);
    for (int64_t i = 0; i < count; i++, at.step(tiles)) {
        for (int64_t j = 0; j < width; j++) {
            const T* from = image<const T>(f.diff_dst, at.n) + (first + j) * plane + (at.y * s.dst_w + at.x) * kLanes;
            float* to = z + (i * width + j) * kLanes;
            Vector y[16], t[24];
            if (at.y + 4 <= s.dst_h && at.x + 4 <= s.dst_w) {
                for (int r = 0; r < 4; r++) {
                    for (int c = 0; c < 4; c++) {
                        y[r * 4 + c] = load<kLanes>(from + (r * s.dst_w + c) * kLanes);
                    }
                }
            } else {
                for (int r = 0; r < 4; r++) {
                    for (int c = 0; c < 4; c++) {
                        const bool inside = at.y + r < s.dst_h && at.x + c < s.dst_w;
                        y[r * 4 + c] = inside ? load<kLanes>(from + (r * s.dst_w + c) * kLanes) : Vector{};
                    }
                }
            }
            for (int c = 0; c < 4; c++) {
                transform_diff_dst(y + c, 4, t + c, 4);
            }
            for (int r = 0; r < 6; r++) {
                Vector points[6];
                transform_diff_dst(t + r * 4, 1, points, 1);
                for (int c = 0; c < 6; c++) {
                    store<kLanes>(to + (r * 6 + c) * s.dst_row, points[c]);
                }
            }
        }
    }
}

// u[channel][N vectors] (+)= sum over tiles of v[tile][channel] * z[tile][N vectors], for R channels of a block.
template <int R, int N> HBN_INLINE void multiply_channels(const float* v, const float* z, int64_t count, float* u, bool add) {
    Vector sum[R][N];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 3
        for (int j = 0; j < N; j++) {
            sum[r][j] = add ? load<kLanes>(u + (r * N + j) * kLanes) : Vector{};
        }
    }
#pragma GCC unroll 2
    for (int64_t i = 0; i < count; i++, v += kLanes, z += N * kLanes) {
        Vector gradient[N];
#pragma GCC unroll 3
        for (int j = 0; j < N; j++) {
            gradient[j] = load<kLanes>(z + j * kLanes);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            const Vector value = broadcast<kLanes>(v[r]);
#pragma GCC unroll 3
            for (int j = 0; j < N; j++) {
                sum[r][j] += value * gradient[j];
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 3
        for (int j = 0; j < N; j++) {
            store<kLanes>(u + (r * N + j) * kLanes, sum[r][j]);
        }
    }
}

// The products of `count` tiles of channel blocks [first, last) with a panel of N blocks. u: the panel's [point][channel][lanes].
template <int N>
static void multiply_gradients(const WinogradShape& s, int64_t count, int64_t blocks, int64_t first, int64_t last, const float* v,
                               const float* z, float* u, bool add) {
    constexpr int R = N == 1 ? kLanes : kLanes / 2;
    for (int p = 0; p < kPoints; p++) {
        for (int64_t c = first * kLanes; c < last * kLanes; c += R) {
            const float* channels = v + p * s.src_row + (c / kLanes - first) * s.tiles * kLanes + c % kLanes;
            multiply_channels<R, N>(channels, z + p * s.dst_row, count, u + (p * blocks * kLanes + c) * N * kLanes, add);
        }
    }
}

// Adds the parts of a panel's gradients of filters from channel block cb of src, transforms and stores them. Padded channels of blocked
// weights become zeros, whatever the sums of padded lanes made of a NaN.
static void store_diff_weights(const WinogradBackwardWeights& f, int64_t first, int64_t width, int64_t cb, const float* u, int64_t part) {
    const WinogradShape& s = f.shape;
    const Weights& w = f.diff_weights;
    const int64_t channels = ceil_div(s.src_channels, (int64_t)kLanes) * kLanes;
    const int64_t room_o = ceil_div(s.dst_channels, w.block_o) * w.block_o, room_c = ceil_div(s.src_channels, w.block_c) * w.block_c;
    alignas(64) float taps[kLanes][9][3 * kLanes];
    for (int c = 0; c < kLanes; c++) {
        for (int64_t j = 0; j < width; j++) {
            Vector sum[kPoints], t[18];
            for (int p = 0; p < kPoints; p++) {
                const float* at = u + ((p * channels + cb * kLanes + c) * width + j) * kLanes;
                sum[p] = load<kLanes>(at);
                for (int64_t k = 1; k < s.parts; k++) {
                    sum[p] += load<kLanes>(at + k * part);
                }
            }
            for (int i = 0; i < 6; i++) {
                transform_diff_weights(sum + i, 6, t + i, 6);
            }
            for (int r = 0; r < 3; r++) {
                Vector row[3];
                transform_diff_weights(t + r * 6, 1, row, 1);
                for (int i = 0; i < 3; i++) {
                    store<kLanes>(taps[c][r * 3 + i] + j * kLanes, row[i]);
                }
            }
        }
    }
    for (int64_t k = 0; k < minimum(width * kLanes, room_o - first * kLanes); k++) {
        float* output = w.data + output_at(w, first * kLanes + k);
        for (int64_t c = 0; c < minimum((int64_t)kLanes, room_c - cb * kLanes); c++) {
            const bool real = first * kLanes + k < s.dst_channels && cb * kLanes + c < s.src_channels;
            float* to = output + input_at(w, cb * kLanes + c);
            for (int y = 0; y < 3; y++) {
                for (int x = 0; x < 3; x++) {
                    to[y * w.row + x * w.column] = real ? taps[c][y * 3 + x][k] : 0.0f;
                }
            }
        }
    }
}

// diffBias of one block of channels: a row at a time in single precision, rows in double, in their order.
template <typename T> static void store_diff_bias(const WinogradBackwardWeights& f, int64_t b) {
    const WinogradShape& s = f.shape;
    Double<kLanes> total{};
    for (int64_t n = 0; n < s.images; n++) {
        const T* p = image<const T>(f.diff_dst, n) + b * s.dst_h * s.dst_w * kLanes;
        for (int64_t y = 0; y < s.dst_h; y++) {
            Vector sum{};
            for (int64_t x = 0; x < s.dst_w; x++) {
                sum += load<kLanes>(p + (y * s.dst_w + x) * kLanes);
            }
            total += widen<kLanes>(sum);
        }
    }
    for (int64_t k = 0; k < kLanes && b * kLanes + k < f.diff_bias.padded; k++) {
        f.diff_bias.data[b * kLanes + k] = b * kLanes + k < s.dst_channels ? (float)total[k] : 0.0f;
    }
}

static void winograd_backward_weights(const WinogradBackwardWeights& f) {
    const WinogradShape& s = f.shape;
    const Tiles tiles(s);
    const Panels panels(s.dst_channels);
    const int64_t blocks = ceil_div(s.src_channels, (int64_t)kLanes), per_block = kPoints * blocks * kLanes * kLanes;
    const int64_t part = panels.blocks * per_block;
    const bool narrow = f.diff_dst.element == Element::BFloat16;
    const auto transform_panel = narrow ? transform_diff_dst_panel<Bf16> : transform_diff_dst_panel<float>;
    const auto store_bias = narrow ? store_diff_bias<Bf16> : store_diff_bias<float>;
#pragma omp parallel num_threads(s.threads)
    {
        float *v = s.own + omp_get_thread_num() * s.own_floats, *z = v + kPoints * s.src_row;
#pragma omp for schedule(static) collapse(3)
        for (int64_t k = 0; k < s.parts; k++) {
            for (int64_t gs = 0; gs < s.src_groups; gs++) {
                for (int64_t gd = 0; gd < s.dst_groups; gd++) {
                    const int64_t first = cut(blocks, s.src_groups, gs), last = cut(blocks, s.src_groups, gs + 1);
                    const int64_t begin = cut(tiles.count, s.parts, k), end = cut(tiles.count, s.parts, k + 1);
                    for (int64_t start = begin; start < end; start += s.tiles) {
                        const int64_t count = minimum(s.tiles, end - start);
                        transform_src_block(s, f.src, f.normalization, tiles, start, count, count, first, last, v);
                        for (int64_t p = cut(panels.count, s.dst_groups, gd); p < cut(panels.count, s.dst_groups, gd + 1); p++) {
                            const int64_t block = panels.first(p), width = panels.width(p);
                            float* u = s.shared + k * part + block * per_block;
                            transform_panel(f, tiles, start, count, block, width, z);
                            const bool add = start > begin;
                            width == 3   ? multiply_gradients<3>(s, count, blocks, first, last, v, z, u, add)
                            : width == 2 ? multiply_gradients<2>(s, count, blocks, first, last, v, z, u, add)
                                         : multiply_gradients<1>(s, count, blocks, first, last, v, z, u, add);
                        }
                    }
                }
            }
        }
#pragma omp for schedule(static) collapse(2) nowait
        for (int64_t p = 0; p < panels.count; p++) {
            for (int64_t c = 0; c < blocks; c++) {
                store_diff_weights(f, panels.first(p), panels.width(p), c, s.shared + panels.first(p) * per_block, part);
            }
        }
        if (f.diff_bias.data != nullptr) {
#pragma omp for schedule(static)
            for (int64_t b = 0; b < panels.blocks; b++) {
                store_bias(f, b);
            }
        }
    }
}

#else

constexpr void (*winograd_backward_weights)(const WinogradBackwardWeights&) = nullptr;

#endif
