// What the device can do at best, measured by what does nothing else.

// Eight chains of multiply-adds per thread, in registers; 2 * 8 * iterations operations each. The store never happens, but the compiler
// cannot know.
HBN_KERNEL(probe_multiply_add)(float* out, int iterations, float a, float b) {
    float x[8];
#pragma unroll
    for (int k = 0; k < 8; ++k)
        x[k] = a * static_cast<float>(threadIdx.x + k);
    for (int i = 0; i < iterations; ++i) {
#pragma unroll
        for (int k = 0; k < 8; ++k)
            x[k] = fmaf(x[k], a, b);
    }
    float sum = 0;
#pragma unroll
    for (int k = 0; k < 8; ++k)
        sum += x[k];
    if (sum == -1.0f)
        out[0] = sum;
}

// dst[i] = src[i] by 16 bytes: read once, written once.
struct alignas(16) Quad {
    u32 v[4];
};

HBN_KERNEL(probe_copy)(const Quad* src, Quad* dst, u32 count) {
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        dst[i] = src[i];
}

#if HBN_ELEMENT != 0
// The tensor cores: 16x8x16 products of 16-bit numbers into fp32, eight independent ones per warp and iteration; 2 * 8 * 2048 operations
// per warp and iteration. Compute capability 8.0; on less, and on the host, it does
// nothing.
HBN_KERNEL(probe_tensor_core)(float* out, int iterations, u32 bits) {
    float sum[8][4] = {};
#if !defined(HBN_HOST) && __CUDA_ARCH__ >= 800
    u32 a = bits ^ threadIdx.x, b = bits + threadIdx.x;
    for (int i = 0; i < iterations; ++i) {
#pragma unroll
        for (int k = 0; k < 8; ++k) {
#if HBN_ELEMENT == 1
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%4,%4,%4}, {%5,%5}, {%0,%1,%2,%3};"
#else
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%4,%4,%4}, {%5,%5}, {%0,%1,%2,%3};"
#endif
                         : "+f"(sum[k][0]), "+f"(sum[k][1]), "+f"(sum[k][2]), "+f"(sum[k][3])
                         : "r"(a), "r"(b));
        }
    }
#endif
    float total = static_cast<float>(iterations) + static_cast<float>(bits);
#pragma unroll
    for (int k = 0; k < 8; ++k)
        total += sum[k][0] + sum[k][1] + sum[k][2] + sum[k][3];
    if (total == -1.0f)
        out[0] = total;
}
#endif
