// Vectors of B floats and doubles in GCC's own notation: one source, one instruction set per compilation.

template <int B> struct Simd;
template <> struct Simd<16> {
    typedef float F __attribute__((vector_size(64)));
    typedef double D __attribute__((vector_size(128)));
    typedef uint32_t U __attribute__((vector_size(64)));
    typedef uint16_t H __attribute__((vector_size(32)));
};
template <> struct Simd<8> {
    typedef float F __attribute__((vector_size(32)));
    typedef double D __attribute__((vector_size(64)));
    typedef uint32_t U __attribute__((vector_size(32)));
    typedef uint16_t H __attribute__((vector_size(16)));
};

template <int B> using Float = typename Simd<B>::F;
template <int B> using Double = typename Simd<B>::D;

#define HBN_INLINE static inline __attribute__((always_inline))

template <int B> HBN_INLINE Float<B> load(const float* p) {
    Float<B> v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

template <int B> HBN_INLINE void store(float* p, Float<B> v) {
    __builtin_memcpy(p, &v, sizeof v);
}

// The upper half of a float. Reads as a float; a float is rounded to nearest, ties to even; a NaN stays one.
HBN_INLINE uint32_t bf16_bits(uint32_t u) {
    const bool nan = (u & 0x7FFFFFFFu) > 0x7F800000u;
    return nan ? u >> 16 | 0x40u : (u + 0x7FFFu + (u >> 16 & 1u)) >> 16;
}

struct Bf16 {
    uint16_t bits;

    Bf16() = default;
    __attribute__((always_inline)) Bf16(float x) {
        uint32_t u;
        __builtin_memcpy(&u, &x, sizeof u);
        bits = (uint16_t)bf16_bits(u);
    }
    __attribute__((always_inline)) operator float() const {
        const uint32_t u = (uint32_t)bits << 16;
        float x;
        __builtin_memcpy(&x, &u, sizeof x);
        return x;
    }
};

template <int B> HBN_INLINE Float<B> load(const Bf16* p) {
    typename Simd<B>::H h;
    __builtin_memcpy(&h, p, sizeof h);
    return (Float<B>)(__builtin_convertvector(h, typename Simd<B>::U) << 16);
}

template <int B> HBN_INLINE void store(Bf16* p, Float<B> v) {
    using U = typename Simd<B>::U;
    const U u = (U)v;
    const U rounded = (u + 0x7FFFu + (u >> 16 & 1u)) >> 16, quiet = u >> 16 | 0x40u;
    const typename Simd<B>::H h = __builtin_convertvector(v == v ? rounded : quiet, typename Simd<B>::H);
    __builtin_memcpy(p, &h, sizeof h);
}

// Image n of a view whose elements are T.
template <typename T> HBN_INLINE T* image(const View& v, int64_t n) {
    return (T*)v.data + n * v.image_stride;
}

template <int B> HBN_INLINE Double<B> load_double(const double* p) {
    Double<B> v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

template <int B> HBN_INLINE void store_double(double* p, Double<B> v) {
    __builtin_memcpy(p, &v, sizeof v);
}

template <int B> HBN_INLINE Double<B> widen(Float<B> v) {
    return __builtin_convertvector(v, Double<B>);
}

template <int B> HBN_INLINE Float<B> broadcast(float x) {
    return x - Float<B>{}; // a sum with zero would be carried out, for the sake of -0
}

template <typename T> HBN_INLINE T minimum(T a, T b) {
    return a < b ? a : b;
}

HBN_INLINE int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// Below this many elements a second thread costs more than it brings.
constexpr int64_t kParallelElements = 8192;

// The widest vector of this compilation, for runs along positions.
#if defined(__AVX512F__)
constexpr int kWidth = 16;
#else
constexpr int kWidth = 8;
#endif
