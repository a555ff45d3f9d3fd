// Backward, every element of diff_src collects from the windows that cover it: it is written once, needs no clearing, and its sum has one
// order whatever the number of threads.

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

// Calls collect(x, cover) for the elements [from, to) of row y, from left to right.
template <typename Collect>
HBN_INLINE void collect_row(const Axis& h, const Axis& w, int64_t y, int64_t from, int64_t to, Collect collect) {
    Cover cover{h.first_window(y), h.last_window(y), w.first_window(from), w.last_window(from)};
    // Where the leftmost window has ended, and where the next one begins.
    int64_t leaves = w.start(cover.left) + w.kernel, enters = w.start(cover.right);
    for (int64_t x = from; x < to; x++) {
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

struct Range {
    int64_t first, end;
};

// Groups of `stride` elements of a row of diff_src: group q begins at x = q * stride - pad, where window q does, and is covered by window q
// and its left neighbours. These are the groups whose windows are all within [low, high), and whose elements all exist.
HBN_INLINE Range groups_of(const Axis& w, int64_t low, int64_t high) {
    const int64_t first = low + (w.kernel - 1) / w.stride, start = ceil_div(w.pad, w.stride);
    return {first > start ? first : start, minimum(high, (w.src + w.pad) / w.stride)};
}

// The terms of windows of K x K, S apart, R rows of them: of element r of group q, column r + m * S of window q - m. `place` is the one
// that the group's first element has in window q of the first row. What is loaded serves all elements of the group. Sums have the order of
// visit_windows.
template <bool Maximum, int K, int S, int R, typename T, typename I, int B>
static void collect_groups(Range groups, int64_t place, Plane<const T> diff_dst, int64_t dst_row, Plane<const I> index, int64_t index_row,
                           float factor, Plane<T> out) {
    using F = typename Lane<B>::F;
    using U = typename Lane<B>::U;
    constexpr int kNeighbours = (K - 1) / S;
    U wanted[R][K];
    for (int i = 0; i < R; i++) {
        for (int c = 0; c < K; c++) {
            wanted[i][c] = same_index<B>(place - i * S * K + c);
        }
    }
    for (int64_t q = groups.first; q < groups.end; q++) {
        F sums[S] = {};
        for (int i = 0; i < R; i++) {
            for (int m = kNeighbours; m >= 0; m--) {
                const F gradient = get<B>(diff_dst.data + i * dst_row + (q - m) * diff_dst.step);
                U winner{};
                if (Maximum) {
                    winner = get_index<B>(index.data + i * index_row + (q - m) * index.step);
                }
                for (int r = 0; r < S && r + m * S < K; r++) {
                    const auto won = winner == wanted[i][r + m * S];
                    sums[r] += !Maximum || won ? gradient : F{};
                }
            }
        }
        for (int r = 0; r < S; r++) {
            put<B>(out.data + (q * S + r) * out.step, Maximum ? sums[r] : sums[r] * factor);
        }
    }
}

// Does collect_groups for row y where its windows are of a kind that networks have, and says which elements that were.
template <bool Maximum, typename T, typename I, int B>
static Range collect_known(const Axis& h, const Axis& w, Range groups, int64_t y, Plane<const T> diff_dst, Plane<const I> index,
                           Plane<T> diff_src) {
    const int64_t top = h.first_window(y), rows = h.last_window(y) - top;
    if (sizeof(I) != 1 || groups.first >= groups.end || h.kernel != w.kernel || h.stride != w.stride || w.kernel > 3 || w.stride > 2) {
        return {w.src, w.src};
    }
    const int64_t place = (y - h.start(top)) * w.kernel;
    const float factor = 1.0f / (float)(h.kernel * w.kernel);
    const Plane<const T> gradients{diff_dst.data + top * w.dst * diff_dst.step, diff_dst.step};
    const Plane<const I> winners{Maximum ? index.data + top * w.dst * index.step : nullptr, index.step};
    const Plane<T> out{diff_src.data + (y * w.src - w.pad) * diff_src.step, diff_src.step};
    const int64_t dst_row = w.dst * diff_dst.step, index_row = w.dst * index.step;
    const Range done{groups.first * w.stride - w.pad, groups.end * w.stride - w.pad};
    switch (100 * w.kernel + 10 * w.stride + rows) {
    case 321:
        collect_groups<Maximum, 3, 2, 1, T, I, B>(groups, place, gradients, dst_row, winners, index_row, factor, out);
        return done;
    case 322:
        collect_groups<Maximum, 3, 2, 2, T, I, B>(groups, place, gradients, dst_row, winners, index_row, factor, out);
        return done;
    case 312:
        collect_groups<Maximum, 3, 1, 2, T, I, B>(groups, place, gradients, dst_row, winners, index_row, factor, out);
        return done;
    case 313:
        collect_groups<Maximum, 3, 1, 3, T, I, B>(groups, place, gradients, dst_row, winners, index_row, factor, out);
        return done;
    case 221:
        collect_groups<Maximum, 2, 2, 1, T, I, B>(groups, place, gradients, dst_row, winners, index_row, factor, out);
        return done;
    default:
        return {w.src, w.src};
    }
}

template <typename T, typename I, int B>
static void max_gradient_rows(const Axis& h, const Axis& w, Plane<const T> diff_dst, Plane<const I> index, Plane<T> diff_src, int64_t first,
                              int64_t end) {
    using F = typename Lane<B>::F;
    const int64_t dst_row = w.dst * diff_dst.step, index_row = w.dst * index.step, next_row = h.stride * w.kernel;
    const Range groups = groups_of(w, 0, w.dst);
    for (int64_t y = first; y < end; y++) {
        T* out = diff_src.data + y * w.src * diff_src.step;
        auto collect = [&](int64_t x, const Cover& cover) {
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
        };
        const Range done = collect_known<true, T, I, B>(h, w, groups, y, diff_dst, index, diff_src);
        collect_row(h, w, y, 0, done.first, collect);
        collect_row(h, w, y, done.end, w.src, collect);
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
    const Range groups = shares.whole ? groups_of(w, 0, w.dst) : groups_of(w, w.first_inside(), w.last_inside());
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
        auto collect = [&](int64_t x, const Cover& cover) {
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
        };
        const Range some = shares.whole || whole_rows ? groups : Range{0, 0};
        const Range done = collect_known<false, T, uint8_t, B>(h, w, some, y, diff_dst, {}, diff_src);
        collect_row(h, w, y, 0, done.first, collect);
        collect_row(h, w, y, done.end, w.src, collect);
    }
}
