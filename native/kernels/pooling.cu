// Pooling. Windows may hang over the image's edge; what lies outside takes no part in a maximum. A maximum remembers its winner's place in
// the window, kernel_w * y + x, so that its gradient needs neither src nor dst and no two threads write one element. A place takes one byte
// (W is u8) in windows of at most 256 places, two otherwise.

template <int V, class W> struct alignas(V * sizeof(W)) Places { W v[V]; };

struct Window {
    int images, src_h, src_w, dst_h, dst_w, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, columns;
};

// kind: 0 maximum, 1 mean over the whole window, 2 mean over the part inside the image.
HBN_DEVICE float divisor(const Window& w, int kind, int y, int x) {
    if (kind == 1)
        return static_cast<float>(w.kernel_h * w.kernel_w);
    int top = y * w.stride_h - w.pad_top, left = x * w.stride_w - w.pad_left;
    int bottom = top + w.kernel_h < w.src_h ? top + w.kernel_h : w.src_h, right = left + w.kernel_w < w.src_w ? left + w.kernel_w : w.src_w;
    return static_cast<float>((bottom - (top > 0 ? top : 0)) * (right - (left > 0 ? left : 0)));
}

template <int V, class W>
HBN_DEVICE void pooling_forward(const elem* src, u32 src_stride, elem* dst, u32 dst_stride, W* winners, const Window& w, int kind) {
    u32 per_row = w.columns / V, total = static_cast<u32>(w.images) * w.dst_h * w.dst_w * per_row;
    for (u32 index = blockIdx.x * blockDim.x + threadIdx.x; index < total; index += gridDim.x * blockDim.x) {
        Place to = place(index, per_row, w.dst_h, w.dst_w);
        u32 column = to.channel * V;
        int top = to.y * w.stride_h - w.pad_top, left = to.x * w.stride_w - w.pad_left;
        float result[V] = {};
        Places<V, W> winner = {};
        bool first = true;
        for (int ky = 0; ky < w.kernel_h; ++ky) {
            int sy = top + ky;
            if (sy < 0 || sy >= w.src_h)
                continue;
            for (int kx = 0; kx < w.kernel_w; ++kx) {
                int sx = left + kx;
                if (sx < 0 || sx >= w.src_w)
                    continue;
                float value[V];
                load(value, src + ((static_cast<u32>(to.image) * w.src_h + sy) * w.src_w + sx) * src_stride + column);
#pragma unroll
                for (int i = 0; i < V; ++i) {
                    if (kind != 0) {
                        result[i] += value[i];
                    } else if (first || value[i] > result[i] || value[i] != value[i]) { // a NaN wins, so that divergence shows
                        result[i] = value[i];
                        winner.v[i] = static_cast<W>(ky * w.kernel_w + kx);
                    }
                }
                first = false;
            }
        }
        if (kind != 0) {
            float by = divisor(w, kind, to.y, to.x);
#pragma unroll
            for (int i = 0; i < V; ++i)
                result[i] /= by;
        } else if (winners) {
            *reinterpret_cast<Places<V, W>*>(winners + to.row * w.columns + column) = winner;
        }
        store(dst + to.row * dst_stride + column, result);
    }
}

// Every element of diffSrc gathers from the windows that hold it.
template <int V, class W>
HBN_DEVICE void pooling_backward(const elem* diff_dst, u32 diff_dst_stride, const W* winners, elem* diff_src, u32 diff_src_stride,
                                 const Window& w, int kind) {
    u32 per_row = w.columns / V, total = static_cast<u32>(w.images) * w.src_h * w.src_w * per_row;
    for (u32 index = blockIdx.x * blockDim.x + threadIdx.x; index < total; index += gridDim.x * blockDim.x) {
        Place to = place(index, per_row, w.src_h, w.src_w);
        u32 column = to.channel * V;
        int y = to.y + w.pad_top, x = to.x + w.pad_left;
        int y_from = y < w.kernel_h ? 0 : (y - w.kernel_h) / w.stride_h + 1,
            x_from = x < w.kernel_w ? 0 : (x - w.kernel_w) / w.stride_w + 1;
        int y_to = y / w.stride_h < w.dst_h ? y / w.stride_h : w.dst_h - 1, x_to = x / w.stride_w < w.dst_w ? x / w.stride_w : w.dst_w - 1;
        float sum[V] = {};
        for (int dy = y_from; dy <= y_to; ++dy) {
            for (int dx = x_from; dx <= x_to; ++dx) {
                u32 from = (static_cast<u32>(to.image) * w.dst_h + dy) * w.dst_w + dx;
                float g[V];
                load(g, diff_dst + from * diff_dst_stride + column);
                float by = kind == 0 ? 1.0f : divisor(w, kind, dy, dx);
                Places<V, W> winner = {};
                if (kind == 0)
                    winner = *reinterpret_cast<const Places<V, W>*>(winners + from * w.columns + column);
                int place = (y - dy * w.stride_h) * w.kernel_w + (x - dx * w.stride_w);
#pragma unroll
                for (int i = 0; i < V; ++i) {
                    if (kind != 0) {
                        sum[i] += g[i] / by;
                    } else if (winner.v[i] == place) {
                        sum[i] += g[i];
                    }
                }
            }
        }
        store(diff_src + to.row * diff_src_stride + column, sum);
    }
}

#define HBN_POOLING(suffix, V, W)                                                                                                          \
    HBN_KERNEL(pooling_forward_##suffix)                                                                                                   \
    (const elem* src, u32 src_stride, elem* dst, u32 dst_stride, W* winners, int images, int src_h, int src_w, int dst_h, int dst_w,       \
     int kernel_h, int kernel_w, int stride_h, int stride_w, int pad_top, int pad_left, int columns, int kind) {                           \
        Window w = {images, src_h, src_w, dst_h, dst_w, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, columns};               \
        pooling_forward<V, W>(src, src_stride, dst, dst_stride, winners, w, kind);                                                         \
    }                                                                                                                                      \
    HBN_KERNEL(pooling_backward_##suffix)                                                                                                  \
    (const elem* diff_dst, u32 diff_dst_stride, const W* winners, elem* diff_src, u32 diff_src_stride, int images, int src_h, int src_w,   \
     int dst_h, int dst_w, int kernel_h, int kernel_w, int stride_h, int stride_w, int pad_top, int pad_left, int columns, int kind) {     \
        Window w = {images, src_h, src_w, dst_h, dst_w, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, columns};               \
        pooling_backward<V, W>(diff_dst, diff_dst_stride, winners, diff_src, diff_src_stride, w, kind);                                    \
    }

HBN_POOLING(wide, HBN_WIDTH, u8)
HBN_POOLING(single, 1, u8)
HBN_POOLING(large, 1, u16)

// The mean over all positions of an image: a block has blockDim.x columns of one image at a time (every gridDim.y-th), its threads along y
// share the positions.
HBN_KERNEL(global_average)(const elem* src, u32 src_stride, elem* dst, u32 dst_stride, int images, int area, int columns) {
    int column = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.y * blockDim.x + threadIdx.x;
    for (int image = blockIdx.y; image < images; image += gridDim.y) {
        float sum = 0;
        if (column < columns) {
            for (int p = threadIdx.y; p < area; p += blockDim.y)
                sum += widen(src[(static_cast<u32>(image) * area + p) * src_stride + column]);
        }
        hbn_shared[lane] = sum;
        __syncthreads();
        for (int half = blockDim.y / 2; half > 0; half /= 2) {
            if (threadIdx.y < half)
                hbn_shared[lane] += hbn_shared[lane + half * blockDim.x];
            __syncthreads();
        }
        if (threadIdx.y == 0 && column < columns)
            dst[static_cast<u32>(image) * dst_stride + column] = narrow(hbn_shared[threadIdx.x] / static_cast<float>(area));
        __syncthreads();
    }
}
