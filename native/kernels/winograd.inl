// Convolution 3x3 of stride 1 by Winograd's minimal filtering F(4x4, 3x3) in single precision, whatever type (T) activations are stored in:
// what its passes share, and the pass that forward and backward-data are. A tile is 4x4 outputs and the 6x6 inputs they depend on. Inputs,
// filters and outputs go through linear transforms, between which a tile costs 36 multiplications per pair of channels instead of 144:
//
//     dst = A^T [ sum over channels of (G weights G^T) * (B^T src B) ] A
//
// The interpolation points are 0, +-5/8, +-3/2 and infinity, whose powers are nearer to one another than those of the customary 0, +-1,
// +-2: less than half the error (decision 022). All that a thread works on stays in its cache: it transforms a block of tiles, multiplies
// it with one panel of filters after the other and transforms the products back, so that no whole feature map is stored transformed.

#if defined(__AVX2__)

// Lanes of a vector, which are the channels of a block of activations; vectors that the innermost loops add up in, all in registers.
constexpr int kLanes = kWidth;
constexpr int kAccumulators = kLanes * 3 / 2;
constexpr int kPoints = 36;
using Vector = Float<kLanes>;

constexpr float kP = 0.625f, kQ = 1.5f, kP2 = kP * kP, kQ2 = kQ * kQ, kP3 = kP2 * kP, kQ3 = kQ2 * kQ;

// 6 inputs to 6 points: one dimension of B^T.
HBN_INLINE void transform_src(const Vector* d, int from, Vector* v, int to) {
    const Vector even1 = d[4 * from] - kQ2 * d[2 * from], odd1 = kP * (d[3 * from] - kQ2 * d[from]);
    const Vector even2 = d[4 * from] - kP2 * d[2 * from], odd2 = kQ * (d[3 * from] - kP2 * d[from]);
    v[0] = kP2 * kQ2 * d[0] + (d[4 * from] - (kP2 + kQ2) * d[2 * from]);
    v[to] = even1 + odd1;
    v[2 * to] = even1 - odd1;
    v[3 * to] = even2 + odd2;
    v[4 * to] = even2 - odd2;
    v[5 * to] = kP2 * kQ2 * d[from] + (d[5 * from] - (kP2 + kQ2) * d[3 * from]);
}

// 6 points to 4 outputs: one dimension of A^T.
HBN_INLINE void transform_dst(const Vector* m, int from, Vector* o, int to) {
    const Vector sum1 = m[from] + m[2 * from], difference1 = m[from] - m[2 * from];
    const Vector sum2 = m[3 * from] + m[4 * from], difference2 = m[3 * from] - m[4 * from];
    o[0] = m[0] + sum1 + sum2;
    o[to] = kP * difference1 + kQ * difference2;
    o[2 * to] = kP2 * sum1 + kQ2 * sum2;
    o[3 * to] = kP3 * difference1 + (kQ3 * difference2 + m[5 * from]);
}

// 3 taps to 6 points: one dimension of G, whose rows are (1, x, x^2) over the product of the point's distances to the other finite ones.
constexpr float kG0 = 1 / (kP2 * kQ2), kG1 = 1 / (2 * kP2 * (kP2 - kQ2)), kG2 = 1 / (2 * kQ2 * (kQ2 - kP2));

HBN_INLINE void transform_weights(const Vector* g, int from, Vector* u, int to) {
    const Vector even1 = kG1 * g[0] + kG1 * kP2 * g[2 * from], odd1 = kG1 * kP * g[from];
    const Vector even2 = kG2 * g[0] + kG2 * kQ2 * g[2 * from], odd2 = kG2 * kQ * g[from];
    u[0] = kG0 * g[0];
    u[to] = even1 + odd1;
    u[2 * to] = even1 - odd1;
    u[3 * to] = even2 + odd2;
    u[4 * to] = even2 - odd2;
    u[5 * to] = g[2 * from];
}

// Blocks of output channels, grouped into the panels that are multiplied at a time: threes, as long as twos make up the rest.
struct Panels {
    int64_t blocks, threes, count;

    explicit Panels(int64_t channels) : blocks(ceil_div(channels, (int64_t)kLanes)) {
        const int64_t twos = blocks == 1 ? 0 : (3 - blocks % 3) % 3;
        threes = blocks == 1 ? 0 : (blocks - 2 * twos) / 3;
        count = blocks == 1 ? 1 : threes + twos;
    }
    int64_t first(int64_t panel) const { return panel < threes ? 3 * panel : 3 * threes + 2 * (panel - threes); }
    int64_t width(int64_t panel) const { return blocks == 1 ? 1 : panel < threes ? 3 : 2; }
};

// The tiles of all images, row by row.
struct Tiles {
    int64_t rows, columns, count;

    explicit Tiles(const WinogradShape& s)
        : rows(ceil_div(s.dst_h, (int64_t)4)), columns(ceil_div(s.dst_w, (int64_t)4)), count(s.images * rows * columns) {}
};

// Where a tile lies: its image and its first output. Steps from one to the next without dividing.
struct Place {
    int64_t n, y, x;

    Place(const Tiles& t, int64_t tile) : n(tile / (t.rows * t.columns)), y(tile / t.columns % t.rows * 4), x(tile % t.columns * 4) {}
    void step(const Tiles& t) {
        x += 4;
        if (x == 4 * t.columns) {
            x = 0;
            y += 4;
            if (y == 4 * t.rows) {
                y = 0;
                n++;
            }
        }
    }
};

// Part number i of `count` things cut into `parts` as equal as they get.
HBN_INLINE int64_t cut(int64_t count, int64_t parts, int64_t i) {
    return count * i / parts;
}

// How src is read: as it is, or normalized on the way (Normalization).
enum class Reading { Raw, Affine, AffineRelu };

struct BlockCoefficients {
    Vector m, a, s;
};

template <Reading K, typename T> HBN_INLINE Vector read_src(const T* p, const BlockCoefficients& k) {
    const Vector x = load<kLanes>(p);
    if (K == Reading::Raw) {
        return x;
    }
    const Vector y = affine<Vector>(x, k.m, k.a, k.s);
    return K == Reading::AffineRelu ? (y < 0.0f ? Vector{} : y) : y;
}

// Transforms one block of channels of a tile: point p to v + p * row. `plane` is the block's, (y, x) the tile's first input.
template <Reading K, typename T>
HBN_INLINE void src_tile(const T* plane, int64_t h, int64_t w, int64_t y, int64_t x, const BlockCoefficients& k, float* v, int64_t row) {
    Vector d[kPoints], t[kPoints];
    if (y >= 0 && x >= 0 && y + 6 <= h && x + 6 <= w) {
        for (int r = 0; r < 6; r++) {
            for (int c = 0; c < 6; c++) {
                d[r * 6 + c] = read_src<K>(plane + ((y + r) * w + x + c) * kLanes, k);
            }
        }
    } else {
        for (int r = 0; r < 6; r++) {
            for (int c = 0; c < 6; c++) {
                const bool inside = y + r >= 0 && y + r < h && x + c >= 0 && x + c < w;
                d[r * 6 + c] = inside ? read_src<K>(plane + ((y + r) * w + x + c) * kLanes, k) : Vector{};
            }
        }
    }
    for (int c = 0; c < 6; c++) {
        transform_src(d + c, 6, t + c, 6);
    }
    for (int r = 0; r < 6; r++) {
        Vector points[6];
        transform_src(t + r * 6, 1, points, 1);
        for (int c = 0; c < 6; c++) {
            store<kLanes>(v + (r * 6 + c) * row, points[c]);
        }
    }
}

// Transforms blocks [first, last) of src for `count` tiles from number `start` on: channel block b, tile i at ((b - first) * s.tiles + i)
// lanes. Tiles up to `room` become zeros.
template <Reading K, typename T>
static void transform_src_block_reading(const WinogradShape& s, const View& src, const Normalization& normalization, const Tiles& tiles,
                                        int64_t start, int64_t count, int64_t room, int64_t first, int64_t last, float* v) {
    const int64_t plane = s.src_h * s.src_w * kLanes;
    for (int64_t b = first; b < last; b++) {
        float* to = v + (b - first) * s.tiles * kLanes;
        BlockCoefficients k{};
        if (K != Reading::Raw) {
            k = {load<kLanes>(normalization.mean + b * kLanes), load<kLanes>(normalization.factor + b * kLanes),
                 load<kLanes>(normalization.shift + b * kLanes)};
        }
        Place at(tiles, start);
        for (int64_t i = 0; i < count; i++, to += kLanes, at.step(tiles)) {
            src_tile<K>(image<const T>(src, at.n) + b * plane, s.src_h, s.src_w, at.y - s.pad_top, at.x - s.pad_left, k, to, s.src_row);
        }
        for (int64_t i = count; i < room; i++, to += kLanes) {
            for (int p = 0; p < kPoints; p++) {
                store<kLanes>(to + p * s.src_row, Vector{});
            }
        }
    }
}

template <typename T>
static void transform_src_block_of(const WinogradShape& s, const View& src, const Normalization& normalization, const Tiles& tiles,
                                   int64_t start, int64_t count, int64_t room, int64_t first, int64_t last, float* v) {
    const auto transform = normalization.mean == nullptr ? transform_src_block_reading<Reading::Raw, T>
                           : normalization.relu          ? transform_src_block_reading<Reading::AffineRelu, T>
                                                         : transform_src_block_reading<Reading::Affine, T>;
    transform(s, src, normalization, tiles, start, count, room, first, last, v);
}

static void transform_src_block(const WinogradShape& s, const View& src, const Normalization& normalization, const Tiles& tiles,
                                int64_t start, int64_t count, int64_t room, int64_t first, int64_t last, float* v) {
    src.element == Element::BFloat16 ? transform_src_block_of<Bf16>(s, src, normalization, tiles, start, count, room, first, last, v)
                                     : transform_src_block_of<float>(s, src, normalization, tiles, start, count, room, first, last, v);
}

// Where the filters of output channel o, and of src channel c, start.
HBN_INLINE int64_t output_at(const Weights& w, int64_t o) {
    return o / w.block_o * w.outer_o + o % w.block_o * w.inner_o;
}

HBN_INLINE int64_t input_at(const Weights& w, int64_t c) {
    return c / w.block_c * w.outer_c + c % w.block_c * w.inner_c;
}

// Floats from one point of a panel's filters, of `blocks` channel blocks of src, to the next.
HBN_INLINE int64_t filter_row(const WinogradShape& s, int64_t blocks, int64_t width) {
    return blocks * kLanes * width * kLanes + s.filter_gap;
}

// Transforms the filters from channel block `cb` of src to a panel: u is that block's place in the panel's [point][src channel][lanes],
// whose points lie `row` apart.
static void filter_panel(const WinogradForward& f, int64_t first, int64_t width, int64_t cb, int64_t row, float* u) {
    const WinogradShape& s = f.shape;
    const Weights& w = f.weights;
    const int64_t real_o = minimum(width * kLanes, s.dst_channels - first * kLanes), real_c = s.src_channels - cb * kLanes;
    // As the library's kernels lay filters: outputs side by side, so that a tap of a block of them is one vector.
    const bool adjacent = w.inner_o == 1 && w.block_o % kLanes == 0 && real_o == width * kLanes && real_c >= kLanes;
    alignas(64) float taps[kLanes][9][3 * kLanes];
    if (!adjacent) {
        memset(taps, 0, sizeof taps);
    }
    for (int64_t k = 0; k < (adjacent ? 0 : real_o); k++) {
        const float* output = w.data + output_at(w, first * kLanes + k);
        for (int64_t c = 0; c < minimum((int64_t)kLanes, real_c); c++) {
            const float* from = output + input_at(w, cb * kLanes + c);
            for (int y = 0; y < 3; y++) {
                for (int x = 0; x < 3; x++) {
                    taps[c][y * 3 + x][k] = from[y * w.row + x * w.column];
                }
            }
        }
    }
    for (int c = 0; c < kLanes; c++) {
        for (int64_t j = 0; j < width; j++) {
            Vector g[9], t[18];
            if (adjacent) {
                const float* from = w.data + output_at(w, (first + j) * kLanes) + input_at(w, cb * kLanes + c);
                for (int i = 0; i < 9; i++) {
                    g[i] = load<kLanes>(from + i / 3 * w.row + i % 3 * w.column);
                    __builtin_prefetch(from + w.outer_c + i / 3 * w.row + i % 3 * w.column); // the next block's: they come from memory
                }
            } else {
                for (int i = 0; i < 9; i++) {
                    g[i] = load<kLanes>(taps[c][i] + j * kLanes);
                }
            }
            for (int i = 0; i < 3; i++) {
                transform_weights(g + i, 3, t + i, 3);
            }
            for (int r = 0; r < 6; r++) {
                Vector points[6];
                transform_weights(t + r * 3, 1, points, 1);
                for (int i = 0; i < 6; i++) {
                    store<kLanes>(u + (r * 6 + i) * row + (c * width + j) * kLanes, points[i]);
                }
            }
        }
    }
}

// m[tile][N vectors] = (add: m +) sum over channels of v[channel][tile] * u[channel][N vectors], for R tiles; blocks of channels lie
// v_block apart in v, vectors m_block apart in m.
template <int R, int N>
HBN_INLINE void multiply_tiles(const float* v, int64_t v_block, int64_t blocks, const float* u, float* m, int64_t m_block,
                               bool add = false) {
    Vector sum[R][N];
#pragma GCC unroll 24
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 3
        for (int j = 0; j < N; j++) {
            sum[r][j] = add ? load<kLanes>(m + j * m_block + r * kLanes) : Vector{};
        }
    }
    for (int64_t b = 0; b < blocks; b++, v += v_block) {
#pragma GCC unroll 2
        for (int k = 0; k < kLanes; k++, u += N * kLanes) {
            Vector filters[N];
#pragma GCC unroll 3
            for (int j = 0; j < N; j++) {
                filters[j] = load<kLanes>(u + j * kLanes);
            }
#pragma GCC unroll 24
            for (int r = 0; r < R; r++) {
                const Vector value = broadcast<kLanes>(v[r * kLanes + k]);
#pragma GCC unroll 3
                for (int j = 0; j < N; j++) {
                    sum[r][j] += value * filters[j];
                }
            }
        }
    }
#pragma GCC unroll 24
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 3
        for (int j = 0; j < N; j++) {
            store<kLanes>(m + j * m_block + r * kLanes, sum[r][j]);
        }
    }
}

// The products of `count` tiles with a panel of N blocks: m is set to them, or they are added to it.
template <int N>
static void multiply_panel(const WinogradShape& s, int64_t count, int64_t blocks, const float* v, const float* u, float* m, bool add) {
    constexpr int R = kAccumulators / N;
    const int64_t block = s.tiles * kLanes, row = filter_row(s, blocks, N);
    for (int p = 0; p < kPoints; p++) {
        for (int64_t i = 0; i < count; i += R) {
            multiply_tiles<R, N>(v + p * s.src_row + i * kLanes, block, blocks, u + p * row, m + p * s.dst_row + i * kLanes, block, add);
        }
    }
}

static void multiply_panel(const WinogradShape& s, int64_t count, int64_t blocks, int64_t width, const float* v, const float* u, float* m,
                           bool add) {
    width == 3   ? multiply_panel<3>(s, count, blocks, v, u, m, add)
    : width == 2 ? multiply_panel<2>(s, count, blocks, v, u, m, add)
                 : multiply_panel<1>(s, count, blocks, v, u, m, add);
}

// Transforms one block of channels of a tile back and stores what lies inside the image, with bias, residual and ReLU. `keep` has zeros in
// padded lanes; a NaN in src would else reach them. The comparison lets NaN through: it must reach the loss, where it is noticed.
template <bool Plain, typename T>
HBN_INLINE void dst_tile(const float* m, int64_t row, T* plane, const T* residual, int64_t h, int64_t w, int64_t y, int64_t x, Vector bias,
                         bool relu, bool partial, Vector keep) {
    Vector t[24];
    for (int c = 0; c < 6; c++) {
        Vector points[6];
        for (int r = 0; r < 6; r++) {
            points[r] = load<kLanes>(m + (r * 6 + c) * row);
        }
        transform_dst(points, 1, t + c, 6);
    }
    const int rows = (int)minimum((int64_t)4, h - y), columns = (int)minimum((int64_t)4, w - x);
    for (int r = 0; r < rows; r++) {
        Vector o[4];
        transform_dst(t + r * 6, 1, o, 1);
        const int64_t at = ((y + r) * w + x) * kLanes;
        for (int c = 0; c < 4; c++) {
            if (c < columns) {
                if (!Plain) {
                    o[c] += bias;
                    if (residual != nullptr) {
                        o[c] += load<kLanes>(residual + at + c * kLanes);
                    }
                    o[c] = relu ? (o[c] < 0.0f ? Vector{} : o[c]) : o[c];
                    o[c] = partial ? (keep != 0.0f ? o[c] : Vector{}) : o[c];
                }
                store<kLanes>(plane + at + c * kLanes, o[c]);
            }
        }
    }
}

// The first `count` of `values`, the other lanes zero.
HBN_INLINE Vector first_lanes(const float* values, int64_t count) {
    Vector v{};
    for (int64_t i = 0; i < minimum(count, (int64_t)kLanes); i++) {
        v[i] = values == nullptr ? 1.0f : values[i];
    }
    return v;
}

template <typename T>
static void transform_dst_panel(const WinogradForward& f, const Tiles& tiles, int64_t start, int64_t count, int64_t first, int64_t width,
                                const float* m) {
    const WinogradShape& s = f.shape;
    const int64_t plane = s.dst_h * s.dst_w * kLanes;
    for (int64_t j = 0; j < width; j++) {
        const int64_t b = first + j, real = s.dst_channels - b * kLanes;
        const bool partial = real < kLanes, plain = f.bias == nullptr && f.residual.data == nullptr && !f.relu && !partial;
        const Vector keep = first_lanes(nullptr, real), bias = f.bias == nullptr ? Vector{} : first_lanes(f.bias + b * kLanes, real);
        Place at(tiles, start);
        for (int64_t i = 0; i < count; i++, at.step(tiles)) {
            const float* from = m + (j * s.tiles + i) * kLanes;
            T* to = image<T>(f.dst, at.n) + b * plane;
            if (plain) {
                dst_tile<true, T>(from, s.dst_row, to, nullptr, s.dst_h, s.dst_w, at.y, at.x, bias, false, false, keep);
            } else {
                const T* residual = f.residual.data == nullptr ? nullptr : image<const T>(f.residual, at.n) + b * plane;
                dst_tile<false, T>(from, s.dst_row, to, residual, s.dst_h, s.dst_w, at.y, at.x, bias, f.relu, partial, keep);
            }
        }
    }
}

// Many tiles: filters are transformed for all threads, then each takes blocks of tiles.
static void multiply_by_tiles(const WinogradForward& f, const Tiles& tiles, const Panels& panels, int64_t blocks) {
    const WinogradShape& s = f.shape;
    const auto store_panel = f.dst.element == Element::BFloat16 ? transform_dst_panel<Bf16> : transform_dst_panel<float>;
    const auto filters_of = [&](int64_t p) { return s.shared + kPoints * (panels.first(p) * blocks * kLanes * kLanes + p * s.filter_gap); };
    float *v = s.own + omp_get_thread_num() * s.own_floats, *m = v + kPoints * s.src_row;
#pragma omp for schedule(static) collapse(2)
    for (int64_t p = 0; p < panels.count; p++) {
        for (int64_t c = 0; c < blocks; c++) {
            const int64_t width = panels.width(p);
            filter_panel(f, panels.first(p), width, c, filter_row(s, blocks, width), filters_of(p) + c * kLanes * width * kLanes);
        }
    }
    const int64_t tile_blocks = ceil_div(tiles.count, s.tiles);
#pragma omp for schedule(static) collapse(2)
    for (int64_t g = 0; g < s.dst_groups; g++) {
        for (int64_t k = 0; k < tile_blocks; k++) {
            const int64_t start = k * s.tiles, count = minimum(s.tiles, tiles.count - start);
            const int64_t room = minimum(s.tiles, ceil_div(count, (int64_t)kAccumulators) * kAccumulators);
            transform_src_block(s, f.src, f.normalization, tiles, start, count, room, 0, blocks, v);
            for (int64_t p = cut(panels.count, s.dst_groups, g); p < cut(panels.count, s.dst_groups, g + 1); p++) {
                multiply_panel(s, count, blocks, panels.width(p), v, filters_of(p), m, false);
                store_panel(f, tiles, start, count, panels.first(p), panels.width(p), m);
            }
        }
    }
}

// Few tiles: they are transformed for all threads, then each takes panels, whose filters are transformed into its cache, multiplied there
// at once and forgotten; in memory they would be four times their size.
static void multiply_by_panels(const WinogradForward& f, const Tiles& tiles, const Panels& panels, int64_t blocks) {
    const WinogradShape& s = f.shape;
    const auto store_panel = f.dst.element == Element::BFloat16 ? transform_dst_panel<Bf16> : transform_dst_panel<float>;
    float *u = s.own + omp_get_thread_num() * s.own_floats, *m = u + kPoints * filter_row(s, s.filter_blocks, 3), *v = s.shared;
#pragma omp for schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        transform_src_block(s, f.src, f.normalization, tiles, 0, tiles.count, s.tiles, b, b + 1, v + b * s.tiles * kLanes);
    }
#pragma omp for schedule(static)
    for (int64_t p = 0; p < panels.count; p++) {
        const int64_t width = panels.width(p);
        for (int64_t first = 0; first < blocks; first += s.filter_blocks) {
            const int64_t some = minimum(s.filter_blocks, blocks - first);
            for (int64_t c = 0; c < some; c++) {
                filter_panel(f, panels.first(p), width, first + c, filter_row(s, some, width), u + c * kLanes * width * kLanes);
            }
            multiply_panel(s, tiles.count, some, width, v + first * s.tiles * kLanes, u, m, first > 0);
        }
        store_panel(f, tiles, 0, tiles.count, panels.first(p), width, m);
    }
}

// Every element is one sum over channels in their order, so neither threads nor the cut of the work show in the result.
static void winograd_forward(const WinogradForward& f) {
    const Tiles tiles(f.shape);
    const Panels panels(f.shape.dst_channels);
    const int64_t blocks = ceil_div(f.shape.src_channels, (int64_t)kLanes);
    const auto multiply = f.shape.filter_blocks > 0 ? multiply_by_panels : multiply_by_tiles;
#pragma omp parallel num_threads(f.shape.threads)
    multiply(f, tiles, panels, blocks);
}

#else

constexpr void (*winograd_forward)(const WinogradForward&) = nullptr;

#endif
