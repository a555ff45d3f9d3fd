// libcudnn.so.9: batch normalization, computed by its definition in double precision.
#include <cmath>

#include "cudnn.hpp"

using namespace cudnn;

namespace {

// Statistic k of element (n, h, w, c), and how many values stand behind each.
struct Statistics {
    bool per_activation;
    Tensor t;

    size_t count() const { return per_activation ? static_cast<size_t>(t.c) * t.h * t.w : t.c; }
    double members() const { return static_cast<double>(t.count()) / count(); }
    size_t of(size_t nhwc) const { return per_activation ? nhwc % count() : nhwc % t.c; }
};

bool batch_norm_arguments(const char* function, void* handle, int mode, const void* x_desc, const void* y_desc, const void* p_desc,
                          Statistics& s) {
    Tensor *x = as<Tensor>(const_cast<void*>(x_desc), kTensor), *y = as<Tensor>(const_cast<void*>(y_desc), kTensor),
           *p = as<Tensor>(const_cast<void*>(p_desc), kTensor);
    if (!as<Handle>(handle, kHandle) || !x || !y || !p)
        return stub::problem(function, "a handle or descriptor is of another kind");
    if (mode < 0 || mode > 2)
        return stub::problem(function, "unknown mode");
    if (x->type != y->type || x->count() != y->count())
        return stub::problem(function, "the tensors differ");
    s = {mode == 0, *x};
    if (p->type != kFloat || p->n != 1 || p->count() != s.count())
        return stub::problem(function, "the parameters must be fp32, one per statistic");
    return true;
}

bool all_on_device(const char* function, size_t bytes, std::initializer_list<const void*> addresses) {
    for (const void* address : addresses) {
        if (!stub::on_device(address, bytes))
            return stub::problem(function, "a tensor is not in device memory");
    }
    return true;
}

} // namespace

STUB_EXPORT int cudnnBatchNormalizationForwardTraining(void* handle, int mode, const void* alpha, const void* beta, void* x_desc,
                                                       const void* x, void* y_desc, void* y, void* p_desc, const void* scale,
                                                       const void* bias, double factor, void* running_mean, void* running_variance,
                                                       double epsilon, void* save_mean, void* save_inverse) {
    STUB_ENTER();
    Statistics s;
    if (!batch_norm_arguments(__func__, handle, mode, x_desc, y_desc, p_desc, s))
        return kBadParam;
    STUB_CHECK(*static_cast<const float*>(alpha) == 1 && *static_cast<const float*>(beta) == 0, kBadParam);
    STUB_CHECK(factor >= 0 && factor <= 1 && epsilon >= 0 && epsilon < 1, kBadParam);
    STUB_CHECK(!running_mean == !running_variance && !save_mean == !save_inverse, kBadParam);
    if (!all_on_device(__func__, s.t.bytes(), {x, y}) || !all_on_device(__func__, s.count() * 4, {scale, bias, save_mean, save_inverse}))
        return kBadParam;
    Tensor ty = *as<Tensor>(y_desc, kTensor);
    stub::enqueue(static_cast<Handle*>(handle)->stream, [=] {
        std::vector<double> v = gather(s.t, x), mean(s.count()), variance(s.count());
        for (size_t i = 0; i < v.size(); ++i)
            mean[s.of(i)] += v[i];
        for (double& m : mean)
            m /= s.members();
        for (size_t i = 0; i < v.size(); ++i)
            variance[s.of(i)] += (v[i] - mean[s.of(i)]) * (v[i] - mean[s.of(i)]);
        for (double& m : variance)
            m /= s.members();
        for (size_t i = 0; i < v.size(); ++i) {
            size_t k = s.of(i);
            v[i] = get(scale, kFloat, k) * (v[i] - mean[k]) / std::sqrt(variance[k] + epsilon) + get(bias, kFloat, k);
        }
        scatter(ty, y, v, 1, 0);
        for (size_t k = 0; k < s.count(); ++k) {
            put(save_mean, kFloat, k, mean[k]);
            put(save_inverse, kFloat, k, 1 / std::sqrt(variance[k] + epsilon));
            if (running_mean) {
                double unbiased = s.members() > 1 ? s.members() / (s.members() - 1) : 1;
                put(running_mean, kFloat, k, (1 - factor) * get(running_mean, kFloat, k) + factor * mean[k]);
                put(running_variance, kFloat, k, (1 - factor) * get(running_variance, kFloat, k) + factor * variance[k] * unbiased);
            }
        }
    });
    return kSuccess;
}

STUB_EXPORT int cudnnBatchNormalizationBackward(void* handle, int mode, const void* alpha_data, const void* beta_data,
                                                const void* alpha_parameters, const void* beta_parameters, void* x_desc, const void* x,
                                                void* dy_desc, const void* dy, void* dx_desc, void* dx, void* p_desc, const void* scale,
                                                void* d_scale, void* d_bias, double epsilon, const void* saved_mean,
                                                const void* saved_inverse) {
    STUB_ENTER();
    Statistics s;
    if (!batch_norm_arguments(__func__, handle, mode, x_desc, dy_desc, p_desc, s) || !as<Tensor>(dx_desc, kTensor))
        return kBadParam;
    STUB_CHECK(*static_cast<const float*>(alpha_data) == 1 && *static_cast<const float*>(beta_data) == 0, kBadParam);
    STUB_CHECK(*static_cast<const float*>(alpha_parameters) == 1 && *static_cast<const float*>(beta_parameters) == 0, kBadParam);
    STUB_CHECK(epsilon >= 0 && epsilon < 1 && saved_mean && saved_inverse, kBadParam);
    if (!all_on_device(__func__, s.t.bytes(), {x, dy, dx}) ||
        !all_on_device(__func__, s.count() * 4, {scale, d_scale, d_bias, saved_mean, saved_inverse}))
        return kBadParam;
    Tensor tdy = *as<Tensor>(dy_desc, kTensor), tdx = *as<Tensor>(dx_desc, kTensor);
    stub::enqueue(static_cast<Handle*>(handle)->stream, [=] {
        std::vector<double> v = gather(s.t, x), g = gather(tdy, dy), sum(s.count()), dot(s.count());
        for (size_t i = 0; i < v.size(); ++i) {
            size_t k = s.of(i);
            v[i] = (v[i] - get(saved_mean, kFloat, k)) * get(saved_inverse, kFloat, k);
            sum[k] += g[i];
            dot[k] += g[i] * v[i];
        }
        for (size_t i = 0; i < v.size(); ++i) {
            size_t k = s.of(i);
            v[i] = get(scale, kFloat, k) * get(saved_inverse, kFloat, k) * (g[i] - sum[k] / s.members() - v[i] * dot[k] / s.members());
        }
        scatter(tdx, dx, v, 1, 0);
        for (size_t k = 0; k < s.count(); ++k) {
            put(d_scale, kFloat, k, dot[k]);
            put(d_bias, kFloat, k, sum[k]);
        }
    });
    return kSuccess;
}
