// Vectors of B floats and doubles in GCC's own notation: one source, one instruction set per compilation.

template <int B> struct Simd;
template <> struct Simd<16> {
    typedef float F __attribute__((vector_size(64)));
    typedef double D __attribute__((vector_size(128)));
};
template <> struct Simd<8> {
    typedef float F __attribute__((vector_size(32)));
    typedef double D __attribute__((vector_size(64)));
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
    return Float<B>{} + x;
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
