// Convolution by its definition, for what cuDNN's descriptors cannot say (uneven padding) or its engines refuse. Weights are KRSC within
// their group. Correct rather than fast: the plan shows where it is used.

struct Convolution {
    int images, src_h, src_w, src_c, dst_h, dst_w, dst_c, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w,
        groups;
};

#define HBN_CONVOLUTION_PARAMETERS                                                                                                         \
    int images, int src_h, int src_w, int src_c, int dst_h, int dst_w, int dst_c, int kernel_h, int kernel_w, int stride_h, int stride_w,  \
        int pad_top, int pad_left, int dilation_h, int dilation_w, int groups
#define HBN_CONVOLUTION_VALUE                                                                                                              \
    {                                                                                                                                      \
        images, src_h, src_w, src_c, dst_h, dst_w, dst_c, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h,           \
            dilation_w, groups                                                                                                             \
    }

HBN_KERNEL(convolution_forward)
(const elem* src, u32 src_stride, const elem* weights, elem* dst, u32 dst_stride, HBN_CONVOLUTION_PARAMETERS, int add) {
    Convolution v = HBN_CONVOLUTION_VALUE;
    int c_per_group = v.src_c / v.groups, k_per_group = v.dst_c / v.groups;
    u32 total = static_cast<u32>(v.images) * v.dst_h * v.dst_w * v.dst_c;
    for (u32 index = blockIdx.x * blockDim.x + threadIdx.x; index < total; index += gridDim.x * blockDim.x) {
        Place to = place(index, v.dst_c, v.dst_h, v.dst_w);
        int c0 = to.channel / k_per_group * c_per_group;
        float sum = add ? widen(dst[to.row * dst_stride + to.channel]) : 0;
        for (int r = 0; r < v.kernel_h; ++r) {
            int sy = to.y * v.stride_h - v.pad_top + r * v.dilation_h;
            if (sy < 0 || sy >= v.src_h)
                continue;
            for (int s = 0; s < v.kernel_w; ++s) {
                int sx = to.x * v.stride_w - v.pad_left + s * v.dilation_w;
                if (sx < 0 || sx >= v.src_w)
                    continue;
                const elem* from = src + ((static_cast<u32>(to.image) * v.src_h + sy) * v.src_w + sx) * src_stride + c0;
                const elem* w = weights + ((static_cast<u32>(to.channel) * v.kernel_h + r) * v.kernel_w + s) * c_per_group;
                for (int c = 0; c < c_per_group; ++c)
                    sum += widen(from[c]) * widen(w[c]);
            }
        }
        dst[to.row * dst_stride + to.channel] = narrow(sum);
    }
}

HBN_KERNEL(convolution_backward_data)
(const elem* diff_dst, u32 diff_dst_stride, const elem* weights, elem* diff_src, u32 diff_src_stride, HBN_CONVOLUTION_PARAMETERS) {
    Convolution v = HBN_CONVOLUTION_VALUE;
    int c_per_group = v.src_c / v.groups, k_per_group = v.dst_c / v.groups;
    u32 total = static_cast<u32>(v.images) * v.src_h * v.src_w * v.src_c;
    for (u32 index = blockIdx.x * blockDim.x + threadIdx.x; index < total; index += gridDim.x * blockDim.x) {
        Place to = place(index, v.src_c, v.src_h, v.src_w);
        int group = to.channel / c_per_group;
        float sum = 0;
        for (int r = 0; r < v.kernel_h; ++r) {
            int y = to.y + v.pad_top - r * v.dilation_h;
            if (y < 0 || y % v.stride_h != 0 || y / v.stride_h >= v.dst_h)
                continue;
            for (int s = 0; s < v.kernel_w; ++s) {
                int x = to.x + v.pad_left - s * v.dilation_w;
                if (x < 0 || x % v.stride_w != 0 || x / v.stride_w >= v.dst_w)
                    continue;
                const elem* from =
                    diff_dst + ((static_cast<u32>(to.image) * v.dst_h + y / v.stride_h) * v.dst_w + x / v.stride_w) * diff_dst_stride;
                for (int k = group * k_per_group; k < (group + 1) * k_per_group; ++k) {
                    sum +=
                        widen(from[k]) *
                        widen(weights[((static_cast<u32>(k) * v.kernel_h + r) * v.kernel_w + s) * c_per_group + to.channel % c_per_group]);
                }
            }
        }
        diff_src[to.row * diff_src_stride + to.channel] = narrow(sum);
    }
}

// A block per element of the weights, in fp32 or with `rounded` in the element type; its threads share the positions.
HBN_KERNEL(convolution_backward_weights)
(const elem* src, u32 src_stride, const elem* diff_dst, u32 diff_dst_stride, float* diff_weights, HBN_CONVOLUTION_PARAMETERS, int rounded) {
    Convolution v = HBN_CONVOLUTION_VALUE;
    int c_per_group = v.src_c / v.groups, k_per_group = v.dst_c / v.groups;
    u32 index = blockIdx.x;
    int c = index % c_per_group, s = index / c_per_group % v.kernel_w, r = index / c_per_group / v.kernel_w % v.kernel_h;
    int k = index / c_per_group / v.kernel_w / v.kernel_h, channel = k / k_per_group * c_per_group + c;
    u32 rows = static_cast<u32>(v.images) * v.dst_h * v.dst_w;
    float sum = 0;
    for (u32 row = threadIdx.x; row < rows; row += blockDim.x) {
        Place from = place(row, 1, v.dst_h, v.dst_w);
        int sy = from.y * v.stride_h - v.pad_top + r * v.dilation_h, sx = from.x * v.stride_w - v.pad_left + s * v.dilation_w;
        if (sy < 0 || sy >= v.src_h || sx < 0 || sx >= v.src_w)
            continue;
        sum += widen(diff_dst[row * diff_dst_stride + k]) *
               widen(src[((static_cast<u32>(from.image) * v.src_h + sy) * v.src_w + sx) * src_stride + channel]);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        if (rounded)
            reinterpret_cast<elem*>(diff_weights)[index] = narrow(sum);
        else
            diff_weights[index] = sum;
    }
}

// dst[n][o] = weights[o] . src[n] in fp32, from 16-bit factors: logits, which cuDNN would round to 16 bits. A row of a block's threads per
// output.
HBN_KERNEL(inner_product_to_float)
(const elem* src, u32 src_stride, const elem* weights, float* dst, u32 dst_stride, int images, int columns, int outputs) {
    int output = blockIdx.x * blockDim.y + threadIdx.y, lane = threadIdx.y * blockDim.x + threadIdx.x;
    for (int image = blockIdx.y; image < images; image += gridDim.y) {
        float sum = 0;
        if (output < outputs) {
            const elem *x = src + static_cast<u32>(image) * src_stride, *w = weights + static_cast<u32>(output) * columns;
            for (int c = threadIdx.x; c < columns; c += blockDim.x)
                sum += widen(x[c]) * widen(w[c]);
        }
        hbn_shared[lane] = sum;
        __syncthreads();
        for (int half = blockDim.x / 2; half > 0; half /= 2) {
            if (threadIdx.x < half)
                hbn_shared[lane] += hbn_shared[lane + half];
            __syncthreads();
        }
        if (threadIdx.x == 0 && output < outputs)
            dst[static_cast<u32>(image) * dst_stride + output] = hbn_shared[lane];
        __syncthreads();
    }
}
