// Everything that differs between oneDNN 2.x (Debian 12) and 3.x (Debian 13, Ubuntu 24.04). The rest of the library sees one API:
// primitive descriptors made from arguments, and a readable layout name.
#ifndef HBN_DNNL_COMPAT_HPP
#define HBN_DNNL_COMPAT_HPP

#include <oneapi/dnnl/dnnl.hpp>

#include <string>
#include <vector>

#if DNNL_VERSION_MAJOR < 2 || DNNL_VERSION_MAJOR > 3
#error "oneDNN 2.6 or later, or 3.x, is needed: apt-get install libdnnl-dev"
#endif

#define HBN_DNNL_V3 (DNNL_VERSION_MAJOR >= 3)

namespace hbn::compat {

using dnnl::algorithm;
using dnnl::engine;
using dnnl::memory;
using dnnl::primitive_attr;
using dnnl::prop_kind;
using dims = memory::dims;

// 2.x: pd(desc(args...), attr, engine[, hint]); 3.x: pd(engine, args...[, hint], attr).
#if HBN_DNNL_V3
template <typename P, typename... Args>
typename P::primitive_desc forward_pd(const engine& e, const primitive_attr& attr, const Args&... args) {
    return typename P::primitive_desc(e, args..., attr);
}
template <typename P, typename Hint, typename... Args>
typename P::primitive_desc backward_pd(const engine& e, const primitive_attr& attr, const Hint& hint, const Args&... args) {
    return typename P::primitive_desc(e, args..., hint, attr);
}
#else
template <typename P, typename... Args>
typename P::primitive_desc forward_pd(const engine& e, const primitive_attr& attr, const Args&... args) {
    return typename P::primitive_desc(typename P::desc(args...), attr, e);
}
template <typename P, typename Hint, typename... Args>
typename P::primitive_desc backward_pd(const engine& e, const primitive_attr& attr, const Hint& hint, const Args&... args) {
    return typename P::primitive_desc(typename P::desc(args...), attr, e, hint);
}
#endif

// LRN and batch normalization: 2.x has one data desc, 3.x names every tensor.
inline dnnl::lrn_forward::primitive_desc lrn_forward(const engine& e, const primitive_attr& attr, prop_kind prop, const memory::desc& data,
                                                     int64_t size, float alpha, float beta, float k) {
#if HBN_DNNL_V3
    return {e, prop, algorithm::lrn_across_channels, data, data, size, alpha, beta, k, attr};
#else
    return {{prop, algorithm::lrn_across_channels, data, size, alpha, beta, k}, attr, e};
#endif
}

inline dnnl::lrn_backward::primitive_desc lrn_backward(const engine& e, const primitive_attr& attr, const memory::desc& data,
                                                       const memory::desc& diff, int64_t size, float alpha, float beta, float k,
                                                       const dnnl::lrn_forward::primitive_desc& hint) {
#if HBN_DNNL_V3
    return {e, algorithm::lrn_across_channels, diff, diff, data, size, alpha, beta, k, hint, attr};
#else
    return {{algorithm::lrn_across_channels, data, diff, size, alpha, beta, k}, attr, e, hint};
#endif
}

inline dnnl::batch_normalization_forward::primitive_desc batch_norm_forward(const engine& e, const primitive_attr& attr, prop_kind prop,
                                                                            const memory::desc& data, float epsilon,
                                                                            dnnl::normalization_flags flags) {
#if HBN_DNNL_V3
    return {e, prop, data, data, epsilon, flags, attr};
#else
    return {{prop, data, epsilon, flags}, attr, e};
#endif
}

inline dnnl::batch_normalization_backward::primitive_desc
batch_norm_backward(const engine& e, const primitive_attr& attr, const memory::desc& diff, const memory::desc& data, float epsilon,
                    dnnl::normalization_flags flags, const dnnl::batch_normalization_forward::primitive_desc& hint) {
#if HBN_DNNL_V3
    return {e, prop_kind::backward, diff, diff, data, epsilon, flags, hint, attr};
#else
    return {{prop_kind::backward, diff, data, epsilon, flags}, attr, e, hint};
#endif
}

// Whether the backward primitive wants the shift it has no use for: 2.x fails without, 3.x with it.
constexpr bool batch_norm_backward_takes_shift = !HBN_DNNL_V3;

// The two numbers of an eltwise algorithm. Swish is x * sigmoid(alpha * x). Hardswish is fixed in 2.x, x * clamp(alpha * x + beta, 0, 1)
// in 3.x.
struct EltwiseNumbers {
    float alpha = 0, beta = 0;
};

inline EltwiseNumbers eltwise_numbers(algorithm alg) {
    if (alg == algorithm::eltwise_swish) {
        return {1.0f, 0.0f};
    }
#if HBN_DNNL_V3
    if (alg == algorithm::eltwise_hardswish) {
        return {1.0f / 6, 0.5f};
    }
#endif
    return {};
}

// Eltwise: 3.x names dst beside src.
inline dnnl::eltwise_forward::primitive_desc eltwise_forward(const engine& e, const primitive_attr& attr, prop_kind prop, algorithm alg,
                                                             const memory::desc& data) {
    const EltwiseNumbers n = eltwise_numbers(alg);
#if HBN_DNNL_V3
    return {e, prop, alg, data, data, n.alpha, n.beta, attr};
#else
    return {{prop, alg, data, n.alpha, n.beta}, attr, e};
#endif
}

inline dnnl::eltwise_backward::primitive_desc eltwise_backward(const engine& e, const primitive_attr& attr, algorithm alg,
                                                               const memory::desc& data,
                                                               const dnnl::eltwise_forward::primitive_desc& hint) {
    const EltwiseNumbers n = eltwise_numbers(alg);
#if HBN_DNNL_V3
    return {e, alg, data, data, data, n.alpha, n.beta, hint, attr};
#else
    return {{alg, data, data, n.alpha, n.beta}, attr, e, hint};
#endif
}

// The parts of a blocked layout; empty when the layout is of another kind.
struct Blocking {
    bool known = false;
    dims sizes, strides, inner_blocks, inner_axes;
};

inline Blocking blocking_of(const memory::desc& md) {
    Blocking b;
#if HBN_DNNL_V3
    b.known = md.get_format_kind() == memory::format_kind::blocked;
    b.sizes = md.get_dims();
    if (b.known) {
        b.strides = md.get_strides();
        b.inner_blocks = md.get_inner_blks();
        b.inner_axes = md.get_inner_idxs();
    }
#else
    b.known = md.data.format_kind == dnnl_blocked;
    b.sizes = md.dims();
    if (b.known) {
        const dnnl_blocking_desc_t& d = md.data.format_desc.blocking;
        b.strides.assign(d.strides, d.strides + md.data.ndims);
        b.inner_blocks.assign(d.inner_blks, d.inner_blks + d.inner_nblks);
        b.inner_axes.assign(d.inner_idxs, d.inner_idxs + d.inner_nblks);
    }
#endif
    return b;
}

inline dims dims_of(const memory::desc& md) {
#if HBN_DNNL_V3
    return md.get_dims();
#else
    return md.dims();
#endif
}

} // namespace hbn::compat

#endif
