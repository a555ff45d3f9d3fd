#include "engine.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <new>
#include <omp.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

// What the machine can do at best: the denominators of every share that a benchmark prints. Each probe takes the best of several short
// runs, on as many threads as the engine has.

namespace hbn {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr int kRuns = 12;
constexpr int64_t kRounds = 2'000'000;

// Enough independent accumulators to hide the latency of a multiply-add on two pipes, few enough for the registers.
constexpr int kAccumulators = 12;

// Each returns the floating-point operations it did; `sink` keeps the compiler from dropping them.
using Work = double (*)(float* sink);

// The compiler contracts the product and the sum where the target has a fused multiply-add. The barrier keeps it from computing the loop in
// advance, different first values from computing all accumulators as one.
#define HBN_MULTIPLY_ADD(NAME, LANES, ...)                                                                                                 \
    __VA_ARGS__ double NAME(float* sink) {                                                                                                 \
        typedef float Vector __attribute__((vector_size(4 * (LANES))));                                                                    \
        Vector sums[kAccumulators];                                                                                                        \
        for (int i = 0; i < kAccumulators; i++) {                                                                                          \
            sums[i] = Vector{} + static_cast<float>(i);                                                                                    \
        }                                                                                                                                  \
        Vector a = Vector{} + 0.999f;                                                                                                      \
        const Vector b = Vector{} + 0.001f;                                                                                                \
        for (int64_t i = 0; i < kRounds; i++) {                                                                                            \
            asm volatile("" : "+x"(a));                                                                                                    \
            for (Vector & s : sums) {                                                                                                      \
                s = s * a + b;                                                                                                             \
            }                                                                                                                              \
        }                                                                                                                                  \
        for (const Vector& s : sums) {                                                                                                     \
            *sink += s[0];                                                                                                                 \
        }                                                                                                                                  \
        return 2.0 * (LANES)*kAccumulators * kRounds;                                                                                      \
    }

HBN_MULTIPLY_ADD(multiply_add_baseline, 4)
#if defined(__x86_64__)
HBN_MULTIPLY_ADD(multiply_add_avx2, 8, __attribute__((target("avx2,fma"))))
HBN_MULTIPLY_ADD(multiply_add_avx512, 16, __attribute__((target("avx512f"))))

__attribute__((target("avx512f,avx512bw,avx512bf16"))) double dot_bf16_avx512(float* sink) {
    __m512 sums[kAccumulators];
    for (int i = 0; i < kAccumulators; i++) {
        sums[i] = _mm512_set1_ps(static_cast<float>(i));
    }
    const __m512i ones = _mm512_set1_epi16(0x3f80);
    __m512bh a;
    std::memcpy(&a, &ones, sizeof a);
    const __m512bh b = a;
    for (int64_t i = 0; i < kRounds; i++) {
        asm volatile("" : "+v"(a));
        for (__m512& s : sums) {
            s = _mm512_dpbf16_ps(s, a, b);
        }
    }
    for (const __m512& s : sums) {
        *sink += _mm512_cvtss_f32(s);
    }
    return 2.0 * 32 * kAccumulators * kRounds;
}
#endif

Work multiply_add(const Engine& engine) {
#if defined(__x86_64__)
    if (engine.isa == HBN_ISA_AVX512) {
        return multiply_add_avx512;
    }
    if (engine.isa == HBN_ISA_AVX2) {
        return multiply_add_avx2;
    }
#endif
    (void)engine;
    return multiply_add_baseline;
}

double flops_per_second(const Engine& engine, Work work) {
    engine.use_threads();
    double best = 0;
    for (int run = 0; run < kRuns; run++) {
        double done = 0;
        float sink = 0;
        const auto start = Clock::now();
#pragma omp parallel reduction(+ : done, sink)
        {
            float mine = 0;
            done = work(&mine);
            sink = mine;
        }
        best = std::max(best, done / seconds_since(start));
        require(sink != 0, "the probe was optimised away");
    }
    return best;
}

// a = b + s*c on arrays far beyond any cache; the bytes that a program counts: two arrays read, one written.
double triad_bytes_per_second(const Engine& engine) {
    constexpr int64_t count = int64_t{24} << 20; // floats: 96 MiB each
    constexpr std::align_val_t line{64};
    const auto release = [](float* p) { ::operator delete(p, line); };
    using Array = std::unique_ptr<float, decltype(release)>;
    const auto allocate = [&] { return Array(static_cast<float*>(::operator new(count * sizeof(float), line)), release); };
    const Array first = allocate(), second = allocate(), third = allocate();
    float* const a = first.get();
    float* const b = second.get();
    float* const c = third.get();
    engine.use_threads();
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i++) {
        a[i] = 0, b[i] = 1, c[i] = 2;
    }
    double best = 0;
    for (int run = 0; run < kRuns; run++) {
        const auto start = Clock::now();
#pragma omp parallel for simd schedule(static)
        for (int64_t i = 0; i < count; i++) {
            a[i] = b[i] + 3.0f * c[i];
        }
        best = std::max(best, 3.0 * count * sizeof(float) / seconds_since(start));
    }
    require(a[count / 2] == 7.0f, "the probe was optimised away");
    return best;
}

} // namespace

} // namespace hbn

using namespace hbn;

hbn_status hbn_probe(hbn_engine* engine, int32_t what, double* rate) noexcept {
    return guard([&] {
        const Engine& e = *checked_handle(engine, "engine").shared;
        checked_handle(rate, "rate") = 0;
        switch (what) {
        case HBN_PROBE_MULTIPLY_ADD:
            *rate = flops_per_second(e, multiply_add(e));
            return;
        case HBN_PROBE_DOT_BF16:
#if defined(__x86_64__)
            if (e.isa == HBN_ISA_AVX512 && __builtin_cpu_supports("avx512bf16")) {
                *rate = flops_per_second(e, dot_bf16_avx512);
                return;
            }
#endif
            *rate = 0;
            return;
        case HBN_PROBE_TRIAD:
            *rate = triad_bytes_per_second(e);
            return;
        default:
            invalid("there is no probe " + std::to_string(what));
        }
    });
}
