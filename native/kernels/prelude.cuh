// What all CUDA kernels share. NVRTC compiles this file and the .cu files beside it as one text, once per element type of activations:
// HBN_ELEMENT 0 = fp32, 1 = bfloat16, 2 = half. No header of CUDA is needed. The same text is compiled by the host's compiler for the tests
// (native/tests/cuda_stub), which defines HBN_HOST and the language of the device.
//
// Every activation is a matrix: rows are positions (n, h, w), columns are channels, NHWC; row r begins at r * stride, so a slice of a
// concatenation is the same as a whole tensor. Sums are kept in fp32 or better and merged in a fixed order: the same input gives the same
// bits.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

// Threads of a block at most, and how many such blocks a multiprocessor must hold at a time: its 65536 registers leave each thread 80.
#define HBN_BLOCK 256
#define HBN_RESIDENT 3

#ifndef HBN_HOST
#define HBN_KERNEL(name) extern "C" __global__ void __launch_bounds__(HBN_BLOCK, HBN_RESIDENT) name
#define HBN_DEVICE static __device__ __forceinline__
// While a thread waits for another block.
static __device__ __forceinline__ void hbn_pause() {
#if __CUDA_ARCH__ >= 700
    __nanosleep(32);
#endif
}
// As many floats as the launch asks for.
extern __shared__ float hbn_shared[];
#endif

#if HBN_ELEMENT == 0
typedef float elem;
#define HBN_WIDTH 4
HBN_DEVICE float widen(elem x) {
    return x;
}
HBN_DEVICE elem narrow(float x) {
    return x;
}
#elif HBN_ELEMENT == 1
struct elem {
    u16 bits;
};
#define HBN_WIDTH 8
HBN_DEVICE float widen(elem x) {
    return __uint_as_float(static_cast<u32>(x.bits) << 16);
}
HBN_DEVICE elem narrow(float x) {
    u32 bits = __float_as_uint(x);
    elem result;
    // To nearest, ties to even; a NaN stays one.
    result.bits = (bits & 0x7FFFFFFFu) > 0x7F800000u ? static_cast<u16>((bits >> 16) | 0x40u)
                                                     : static_cast<u16>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
    return result;
}
#else
struct elem {
    u16 bits;
};
#define HBN_WIDTH 8
#ifndef HBN_HOST
HBN_DEVICE float widen(elem x) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x.bits));
    return result;
}
HBN_DEVICE elem narrow(float x) {
    elem result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    return result;
}
#else
HBN_DEVICE float widen(elem x) {
    return hbn_half_to_float(x.bits);
}
HBN_DEVICE elem narrow(float x) {
    elem result;
    result.bits = hbn_float_to_half(x);
    return result;
}
#endif
#endif

// V neighbouring channels: one load of 16 bytes where V is HBN_WIDTH.
template <int V> struct alignas(V * sizeof(elem)) Pack { elem v[V]; };

template <int V> HBN_DEVICE Pack<V> load_pack(const elem* from) {
    return *reinterpret_cast<const Pack<V>*>(from);
}

template <int V> HBN_DEVICE void widen(float (&out)[V], const Pack<V>& pack) {
#pragma unroll
    for (int i = 0; i < V; ++i)
        out[i] = widen(pack.v[i]);
}

template <int V> HBN_DEVICE void load(float (&out)[V], const elem* from) {
    widen(out, load_pack<V>(from));
}

template <int V> HBN_DEVICE void store(elem* to, const float (&in)[V]) {
    Pack<V> pack;
#pragma unroll
    for (int i = 0; i < V; ++i)
        pack.v[i] = narrow(in[i]);
    *reinterpret_cast<Pack<V>*>(to) = pack;
}

template <int V> HBN_DEVICE void load_parameters(float (&out)[V], const float* from) {
#pragma unroll
    for (int i = 0; i < V; ++i)
        out[i] = from[i];
}

// Which element of an NHWC tensor an index is; `channel` counts packs where a pack of channels has one index.
struct Place {
    u32 row;
    int channel, image, y, x;
};

HBN_DEVICE Place place(u32 index, int channels, int height, int width) {
    Place p;
    p.row = index / channels;
    p.channel = index - p.row * channels;
    p.image = p.row / (height * width);
    int position = p.row - p.image * (height * width);
    p.y = position / width;
    p.x = position - p.y * width;
    return p;
}

// What changes from step to step, in device memory, so that a recorded step can be replayed.
struct StepState {
    u32 step_low, step_high;
    float learning_rate;
};

HBN_KERNEL(set_step)(StepState* state, u32 step_low, u32 step_high, float learning_rate) {
    state->step_low = step_low;
    state->step_high = step_high;
    state->learning_rate = learning_rate;
}

// Adds up `value` over the block; every thread gets the sum. The tree's shape depends on the block's size alone.
// Shared memory has a float per thread.
HBN_DEVICE float block_sum(float value) {
    int t = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    hbn_shared[t] = value;
    __syncthreads();
    for (int half = threads / 2; half > 0; half /= 2) {
        if (t < half)
            hbn_shared[t] += hbn_shared[t + half];
        __syncthreads();
    }
    float sum = hbn_shared[0];
    __syncthreads();
    return sum;
}

HBN_DEVICE float block_max(float value) {
    int t = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    hbn_shared[t] = value;
    __syncthreads();
    for (int half = threads / 2; half > 0; half /= 2) {
        if (t < half)
            hbn_shared[t] = fmaxf(hbn_shared[t], hbn_shared[t + half]);
        __syncthreads();
    }
    float largest = hbn_shared[0];
    __syncthreads();
    return largest;
}

// True in every thread of the block that is the last of `blocks` to come here; what the others wrote before is then visible to it. The
// counter is zero before the kernel and zero again after it. Overwrites shared memory, of which there is at least a float.
HBN_DEVICE bool is_last_block(u32* counter, u32 blocks) {
    if (blocks == 1) {
        __syncthreads();
        return true;
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        bool last = atomicAdd(counter, 1u) == blocks - 1;
        if (last)
            *counter = 0;
        hbn_shared[0] = last ? 1.0f : 0.0f;
    }
    __syncthreads();
    bool last = hbn_shared[0] != 0;
    __syncthreads();
    if (last)
        __threadfence();
    return last;
}

// A barrier across blocks, in three parts: every block asks for the generation before it comes to is_last_block(); the last block, when it
// has done what the others wait for, releases them; they wait. The generation is any number, and another one afterwards. A block that has
// not begun would be waited for in vain: the launch must be a cooperative one, which begins with all of its blocks or not at all.
HBN_DEVICE u32 generation_of(const u32* generation) {
    return *const_cast<const volatile u32*>(generation);
}

HBN_DEVICE void release_blocks(u32* generation) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0)
        atomicAdd(generation, 1u);
}

HBN_DEVICE void wait_for_release(const u32* generation, u32 before) {
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        while (generation_of(generation) == before)
            hbn_pause();
        __threadfence();
    }
    __syncthreads();
}
