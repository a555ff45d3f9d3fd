// The language of the device for the host's compiler: what the .cu files use of CUDA C++. Threads are fibers that change at barriers. One
// block runs at a time, except in a cooperative launch, where a thread that waits for another block lets the others run.
#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <tuple>
#include <utility>

#define HBN_HOST
#define HBN_KERNEL(name) static void name
#define HBN_DEVICE static inline

namespace emulator {

struct Dim {
    unsigned x, y, z;
};

extern Dim thread_index, block_index, block_dim, grid_dim;
extern float* dynamic_shared;

void barrier();

// The calling thread waits for something that another block does.
void pause();

// Runs body for every thread of every block.
void run(const std::function<void()>& body, Dim grid, Dim block, unsigned shared_bytes);

// The same, all blocks at a time: what a cooperative launch promises.
void run_together(const std::function<void()>& body, Dim grid, Dim block, unsigned shared_bytes);

using Prepare = std::function<void()> (*)(void** parameters);

// The kernels of one element type (0 fp32, 1 bf16, 2 half); null when there is none of the name.
Prepare find(int element, const char* name);

template <class... A, size_t... I> std::function<void()> bind_kernel(void (*kernel)(A...), void** parameters, std::index_sequence<I...>) {
    std::tuple<A...> values;
    ((std::memcpy(&std::get<I>(values), parameters[I], sizeof(A))), ...);
    return [kernel, values] { std::apply(kernel, values); };
}

template <class... A> std::function<void()> bind_kernel(void (*kernel)(A...), void** parameters) {
    return bind_kernel(kernel, parameters, std::index_sequence_for<A...>{});
}

} // namespace emulator

#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index
#define blockDim emulator::block_dim
#define gridDim emulator::grid_dim
#define hbn_shared emulator::dynamic_shared

static inline void __syncthreads() {
    emulator::barrier();
}
static inline void __threadfence() {}
static inline void hbn_pause() {
    emulator::pause();
}

static inline unsigned atomicAdd(unsigned* address, unsigned value) {
    unsigned old = *address;
    *address += value;
    return old;
}

static inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float hbn_half_to_float(unsigned short half) {
    unsigned sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 31)
        return __uint_as_float(sign | 0x7F800000u | fraction << 13);
    float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                    : std::ldexp(static_cast<float>(fraction | 1024), static_cast<int>(exponent) - 25);
    return sign ? -magnitude : magnitude;
}

static inline unsigned short hbn_float_to_half(float value) {
    unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u;
    if (std::isnan(value))
        return static_cast<unsigned short>(sign | 0x7E00u);
    float magnitude = std::fabs(value);
    if (magnitude >= 65520.0f)
        return static_cast<unsigned short>(sign | 0x7C00u);
    if (magnitude < 6.103515625e-05f)
        return static_cast<unsigned short>(sign | static_cast<unsigned>(std::nearbyint(std::ldexp(magnitude, 24))));
    bits &= 0x7FFFFFFFu;
    bits += 0xFFFu + (bits >> 13 & 1u);
    return static_cast<unsigned short>(sign | ((bits - 0x38000000u) >> 13));
}
