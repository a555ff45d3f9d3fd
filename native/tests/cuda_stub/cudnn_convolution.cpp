// libcudnn.so.9: convolution, computed by its definition in double precision.
#include <cstring>
#include <random>
#include <set>

#include "cudnn.hpp"

using namespace cudnn;

namespace {

struct Perf {
    int algo, status;
    float time;
    size_t memory;
    int determinism, math, reserved[3];
};
static_assert(sizeof(Perf) == 48 && offsetof(Perf, memory) == 16 && offsetof(Perf, determinism) == 24 && offsetof(Perf, math) == 28,
              "cudnnConvolutionFwdAlgoPerf_t");

// x: src, w: weights, y: dst; the one of `pass` is computed from the two others, in fp32 where `single`.
std::vector<double> convolve(int pass, const Tensor& x, const Tensor& w, const Tensor& y, const Convolution& v,
                             const std::vector<double>& a, const std::vector<double>& b, bool single) {
    auto add = [single](double& sum, double value) { sum = single ? static_cast<float>(sum + value) : sum + value; };
    std::vector<double> result(pass == 0 ? y.count() : pass == 1 ? x.count() : w.count());
    int c_group = x.c / v.groups, k_group = y.c / v.groups;
    for (int n = 0; n < y.n; ++n)
        for (int oh = 0; oh < y.h; ++oh)
            for (int ow = 0; ow < y.w; ++ow)
                for (int r = 0; r < w.h; ++r)
                    for (int s = 0; s < w.w; ++s) {
                        int ih = oh * v.stride_h - v.pad_h + r * v.dilation_h, iw = ow * v.stride_w - v.pad_w + s * v.dilation_w;
                        if (ih < 0 || ih >= x.h || iw < 0 || iw >= x.w)
                            continue;
                        size_t at_x = ((static_cast<size_t>(n) * x.h + ih) * x.w + iw) * x.c,
                               at_y = ((static_cast<size_t>(n) * y.h + oh) * y.w + ow) * y.c;
                        for (int k = 0; k < y.c; ++k) {
                            size_t at_w = ((static_cast<size_t>(k) * w.h + r) * w.w + s) * c_group, from = at_x + k / k_group * c_group;
                            if (pass == 0) { // a: src, b: weights
                                double sum = 0;
                                for (int c = 0; c < c_group; ++c)
                                    add(sum, a[from + c] * b[at_w + c]);
                                add(result[at_y + k], sum);
                            } else if (pass == 1) { // a: weights, b: diffDst
                                for (int c = 0; c < c_group; ++c)
                                    add(result[from + c], a[at_w + c] * b[at_y + k]);
                            } else { // a: src, b: diffDst
                                for (int c = 0; c < c_group; ++c)
                                    add(result[at_w + c], a[from + c] * b[at_y + k]);
                            }
                        }
                    }
    return result;
}

// Which algorithms there are, and what they want. Number 0 of the backward passes gives other bits every time, as cuDNN says of it.
struct Algorithm {
    int number;
    float time;
    size_t memory;
    bool deterministic;
};
const Algorithm algorithms[3][3] = {
    {{1, 0.1f, 4096, true}, {0, 0.2f, 0, true}, {6, 0.3f, 65536, true}},
    {{0, 0.1f, 0, false}, {1, 0.2f, 4096, true}, {5, 0.3f, 65536, true}},
    {{3, 0.1f, 1024, false}, {1, 0.2f, 4096, true}, {0, 0.3f, 0, false}},
};

const Algorithm* find_algorithm(int pass, int number) {
    for (const Algorithm& a : algorithms[pass]) {
        if (a.number == number)
            return &a;
    }
    return nullptr;
}

// What a search measures. With "first_search_slow" the fastest algorithm's kernels are loaded by the first search of a problem, and its
// time holds that; with "searches_differ" no two searches agree on the fastest, as on a device whose clock or load changes.
float measured(int pass, const Tensor& x, const Filter& w, const Tensor& y, const Algorithm& algorithm) {
    static std::set<std::vector<int>> loaded;
    static std::mt19937 noise(1);
    float time = algorithm.time;
    if (stub::setting("searches_differ", 0))
        time = 0.1f + static_cast<float>(noise() % 1000) * 1e-3f;
    if (!stub::setting("first_search_slow", 0))
        loaded.clear();
    else if (&algorithm == algorithms[pass] &&
             loaded.insert({pass, x.type, x.n, x.c, x.h, x.w, x.ws, w.n, w.h, w.w, y.h, y.w, y.ws}).second)
        time += 5;
    return time;
}

// The descriptors of x, w and y by pass, checked against one another.
bool fits(const char* function, const Tensor& x, const Filter& w, const Tensor& y, const Convolution& v) {
    if (x.type < 0 || w.type != x.type || y.type != x.type)
        return stub::problem(function, "the three tensors differ in type");
    if (x.cs != 1 || y.cs != 1)
        return stub::problem(function, "expected NHWC strides");
    if (v.pad_h < 0)
        return stub::problem(function, "the convolution was not set");
    if (w.c * v.groups != x.c || w.n != y.c || x.n != y.n)
        return stub::problem(function, "channels or images do not fit");
    int h = (x.h + 2 * v.pad_h - ((w.h - 1) * v.dilation_h + 1)) / v.stride_h + 1,
        u = (x.w + 2 * v.pad_w - ((w.w - 1) * v.dilation_w + 1)) / v.stride_w + 1;
    if (h != y.h || u != y.w)
        return stub::problem(function, "the output has the wrong extent");
    if (v.math < 0 || v.math > 3)
        return stub::problem(function, "unknown math type");
    return true;
}

// With "refuse_groups" grouped convolutions get that status, with "refuse_slices" those whose outputs do not lie densely.
int refuses(int pass, const Tensor& y, const Convolution& v) {
    int groups = v.groups > 1 ? static_cast<int>(stub::setting("refuse_groups", 0)) : kSuccess;
    return groups || pass != 0 || y.ws == y.c ? groups : static_cast<int>(stub::setting("refuse_slices", 0));
}

// With "alignment" every algorithm wants addresses that are multiples of it, as those that read 16 bytes at a time do.
bool aligned(std::initializer_list<const void*> addresses) {
    for (const void* address : addresses) {
        if (reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(stub::setting("alignment", 1)) != 0)
            return false;
    }
    return true;
}

int find(const char* function, int pass, void* handle, const Tensor& x, const Filter& w, const Tensor& y, const Convolution& v,
         const void* a, size_t a_bytes, const void* b, size_t b_bytes, void* c, size_t c_bytes, int requested, int* returned, Perf* results,
         void* workspace, size_t workspace_bytes) {
    if (!as<Handle>(handle, kHandle) || requested < 1 || !returned || !results)
        return stub::problem(function, "bad arguments"), kBadParam;
    if (stub::capturing())
        return stub::problem(function, "called while a step is recorded"), kBadParam;
    if (!fits(function, x, w, y, v))
        return kBadParam;
    if (!stub::on_device(a, a_bytes) || !stub::on_device(b, b_bytes) || !stub::on_device(c, c_bytes))
        return stub::problem(function, "a tensor is not in device memory"), kBadParam;
    if (workspace_bytes && !stub::on_device(workspace, workspace_bytes))
        return stub::problem(function, "the workspace is not in device memory"), kBadParam;
    if (int status = refuses(pass, y, v))
        return status;
    if (!aligned({a, b, c}))
        return kMisaligned;
    stub::finish();
    stub::Access access;
    memset(c, 0xFF, c_bytes);
    memset(workspace, 0xFF, workspace_bytes < 65536 ? workspace_bytes : 65536);
    *returned = 0;
    for (const Algorithm& algorithm : algorithms[pass]) {
        if (*returned < requested && algorithm.memory <= workspace_bytes) {
            results[(*returned)++] =
                Perf{algorithm.number,    0,        measured(pass, x, w, y, algorithm), algorithm.memory, algorithm.deterministic,
                     v.math == 3 ? 3 : 0, {0, 0, 0}};
        }
    }
    if (*returned < requested)
        results[(*returned)++] = Perf{7, kNotSupported, -1, static_cast<size_t>(-1), 0, 0, {0, 0, 0}};
    return kSuccess;
}

int workspace_size(const char* function, int pass, void* handle, const Tensor* x, const Filter* w, const Tensor* y, const Convolution* v,
                   int number, size_t* bytes) {
    if (!as<Handle>(handle, kHandle) || !x || !w || !y || !v || !bytes || !fits(function, *x, *w, *y, *v))
        return kBadParam;
    const Algorithm* algorithm = find_algorithm(pass, number);
    if (!algorithm)
        return kNotSupported;
    // With "refuse_fastest" the algorithm that a search puts first gets that status when it is asked about.
    if (algorithm == algorithms[pass] && stub::setting("refuse_fastest", 0))
        return static_cast<int>(stub::setting("refuse_fastest", 0));
    *bytes = algorithm->memory;
    return kSuccess;
}

int execute(const char* function, int pass, void* handle, const void* alpha, const Tensor& x, const Filter& w, const Tensor& y,
            const Convolution& v, const Tensor& a, const void* a_data, const Tensor& b, const void* b_data, const Tensor& c, void* c_data,
            int number, void* workspace, size_t workspace_bytes, const void* beta) {
    Handle* h = as<Handle>(handle, kHandle);
    if (!h || !alpha || !beta)
        return stub::problem(function, "bad arguments"), kBadParam;
    if (!fits(function, x, w, y, v))
        return kBadParam;
    if (int status = refuses(pass, y, v))
        return status;
    const Algorithm* algorithm = find_algorithm(pass, number);
    if (!algorithm)
        return stub::problem(function, "an algorithm that no search returned"), kBadParam;
    if (workspace_bytes < algorithm->memory)
        return stub::problem(function, "the workspace is smaller than was asked for"), kBadParam;
    if (workspace_bytes && !stub::on_device(workspace, workspace_bytes))
        return stub::problem(function, "the workspace is not in device memory"), kBadParam;
    if (!stub::on_device(a_data, a.bytes()) || !stub::on_device(b_data, b.bytes()) || !stub::on_device(c_data, c.bytes()))
        return stub::problem(function, "a tensor is not in device memory"), kBadParam;
    if (!aligned({a_data, b_data, c_data}))
        return kMisaligned;
    float al = *static_cast<const float*>(alpha), be = *static_cast<const float*>(beta);
    Tensor ta = a, tb = b, tc = c, tx = x, tw = w, ty = y;
    Convolution cv = v;
    size_t used = algorithm->memory;
    // One of them adds in fp32: another algorithm, other bits.
    bool single = used == 65536;
    stub::enqueue(h->stream, [=] {
        std::vector<double> result = convolve(pass, tx, tw, ty, cv, gather(ta, a_data), gather(tb, b_data), single);
        if (used)
            memset(workspace, 0xFF, used);
        scatter(tc, c_data, result, al, be);
    });
    return kSuccess;
}

bool same(const Tensor& a, const Tensor& b) {
    return a.type == b.type && a.n == b.n && a.c == b.c && a.h == b.h && a.w == b.w && a.ns == b.ns && a.cs == b.cs && a.hs == b.hs &&
           a.ws == b.ws;
}

bool overlap(const void* a, size_t a_bytes, const void* b, size_t b_bytes) {
    const char *first = static_cast<const char*>(a), *second = static_cast<const char*>(b);
    return first < second + b_bytes && second < first + a_bytes;
}

// What cudnnConvolutionBiasActivationForward does not support, by its documentation.
bool unsupported(const Tensor& z, const Tensor& bias, const Activation& activation, const Filter& w, const Tensor& y, int algorithm) {
    return (activation.mode != kRelu && activation.mode != kIdentity) || activation.nan_option != 0 ||
           (activation.mode == kIdentity && algorithm != 1) || bias.n != 1 || bias.cs != 1 || bias.c != w.n || bias.h != 1 || bias.w != 1 ||
           bias.type != y.type || !same(z, y);
}

} // namespace

STUB_EXPORT int cudnnFindConvolutionForwardAlgorithmEx(void* handle, void* x_desc, const void* x, void* w_desc, const void* w, void* conv,
                                                       void* y_desc, void* y, int requested, int* returned, Perf* results, void* workspace,
                                                       size_t bytes) {
    STUB_ENTER();
    Tensor *tx = as<Tensor>(x_desc, kTensor), *ty = as<Tensor>(y_desc, kTensor);
    Filter* fw = as<Filter>(w_desc, kFilter);
    Convolution* v = as<Convolution>(conv, kConvolution);
    STUB_CHECK(tx && ty && fw && v, kBadParam);
    return find(__func__, 0, handle, *tx, *fw, *ty, *v, x, tx->bytes(), w, fw->bytes(), y, ty->bytes(), requested, returned, results,
                workspace, bytes);
}

STUB_EXPORT int cudnnFindConvolutionBackwardDataAlgorithmEx(void* handle, void* w_desc, const void* w, void* dy_desc, const void* dy,
                                                            void* conv, void* dx_desc, void* dx, int requested, int* returned,
                                                            Perf* results, void* workspace, size_t bytes) {
    STUB_ENTER();
    Tensor *tx = as<Tensor>(dx_desc, kTensor), *ty = as<Tensor>(dy_desc, kTensor);
    Filter* fw = as<Filter>(w_desc, kFilter);
    Convolution* v = as<Convolution>(conv, kConvolution);
    STUB_CHECK(tx && ty && fw && v, kBadParam);
    return find(__func__, 1, handle, *tx, *fw, *ty, *v, w, fw->bytes(), dy, ty->bytes(), dx, tx->bytes(), requested, returned, results,
                workspace, bytes);
}

STUB_EXPORT int cudnnFindConvolutionBackwardFilterAlgorithmEx(void* handle, void* x_desc, const void* x, void* dy_desc, const void* dy,
                                                              void* conv, void* dw_desc, void* dw, int requested, int* returned,
                                                              Perf* results, void* workspace, size_t bytes) {
    STUB_ENTER();
    Tensor *tx = as<Tensor>(x_desc, kTensor), *ty = as<Tensor>(dy_desc, kTensor);
    Filter* fw = as<Filter>(dw_desc, kFilter);
    Convolution* v = as<Convolution>(conv, kConvolution);
    STUB_CHECK(tx && ty && fw && v, kBadParam);
    return find(__func__, 2, handle, *tx, *fw, *ty, *v, x, tx->bytes(), dy, ty->bytes(), dw, fw->bytes(), requested, returned, results,
                workspace, bytes);
}

STUB_EXPORT int cudnnGetConvolutionForwardWorkspaceSize(void* handle, void* x, void* w, void* conv, void* y, int algo, size_t* bytes) {
    STUB_ENTER();
    return workspace_size(__func__, 0, handle, as<Tensor>(x, kTensor), as<Filter>(w, kFilter), as<Tensor>(y, kTensor),
                          as<Convolution>(conv, kConvolution), algo, bytes);
}

STUB_EXPORT int cudnnGetConvolutionBackwardDataWorkspaceSize(void* handle, void* w, void* dy, void* conv, void* dx, int algo,
                                                             size_t* bytes) {
    STUB_ENTER();
    return workspace_size(__func__, 1, handle, as<Tensor>(dx, kTensor), as<Filter>(w, kFilter), as<Tensor>(dy, kTensor),
                          as<Convolution>(conv, kConvolution), algo, bytes);
}

STUB_EXPORT int cudnnGetConvolutionBackwardFilterWorkspaceSize(void* handle, void* x, void* dy, void* conv, void* dw, int algo,
                                                               size_t* bytes) {
    STUB_ENTER();
    return workspace_size(__func__, 2, handle, as<Tensor>(x, kTensor), as<Filter>(dw, kFilter), as<Tensor>(dy, kTensor),
                          as<Convolution>(conv, kConvolution), algo, bytes);
}

STUB_EXPORT int cudnnConvolutionForward(void* handle, const void* alpha, void* x_desc, const void* x, void* w_desc, const void* w,
                                        void* conv, int algo, void* workspace, size_t bytes, const void* beta, void* y_desc, void* y) {
    STUB_ENTER();
    Tensor *tx = as<Tensor>(x_desc, kTensor), *ty = as<Tensor>(y_desc, kTensor);
    Filter* fw = as<Filter>(w_desc, kFilter);
    Convolution* v = as<Convolution>(conv, kConvolution);
    STUB_CHECK(tx && ty && fw && v, kBadParam);
    return execute(__func__, 0, handle, alpha, *tx, *fw, *ty, *v, *tx, x, *fw, w, *ty, y, algo, workspace, bytes, beta);
}

STUB_EXPORT int cudnnConvolutionBackwardData(void* handle, const void* alpha, void* w_desc, const void* w, void* dy_desc, const void* dy,
                                             void* conv, int algo, void* workspace, size_t bytes, const void* beta, void* dx_desc,
                                             void* dx) {
    STUB_ENTER();
    Tensor *tx = as<Tensor>(dx_desc, kTensor), *ty = as<Tensor>(dy_desc, kTensor);
    Filter* fw = as<Filter>(w_desc, kFilter);
    Convolution* v = as<Convolution>(conv, kConvolution);
    STUB_CHECK(tx && ty && fw && v, kBadParam);
    return execute(__func__, 1, handle, alpha, *tx, *fw, *ty, *v, *fw, w, *ty, dy, *tx, dx, algo, workspace, bytes, beta);
}

STUB_EXPORT int cudnnConvolutionBackwardFilter(void* handle, const void* alpha, void* x_desc, const void* x, void* dy_desc, const void* dy,
                                               void* conv, int algo, void* workspace, size_t bytes, const void* beta, void* dw_desc,
                                               void* dw) {
    STUB_ENTER();
    Tensor *tx = as<Tensor>(x_desc, kTensor), *ty = as<Tensor>(dy_desc, kTensor);
    Filter* fw = as<Filter>(dw_desc, kFilter);
    Convolution* v = as<Convolution>(conv, kConvolution);
    STUB_CHECK(tx && ty && fw && v, kBadParam);
    return execute(__func__, 2, handle, alpha, *tx, *fw, *ty, *v, *tx, x, *ty, dy, *fw, dw, algo, workspace, bytes, beta);
}

// y = activation(alpha1 * convolution + alpha2 * z + bias); ReLU does not let a NaN through.
STUB_EXPORT int cudnnConvolutionBiasActivationForward(void* handle, const void* alpha1, void* x_desc, const void* x, void* w_desc,
                                                      const void* w, void* conv, int algo, void* workspace, size_t bytes,
                                                      const void* alpha2, void* z_desc, const void* z, void* bias_desc, const void* bias,
                                                      void* activation_desc, void* y_desc, void* y) {
    STUB_ENTER();
    Handle* h = as<Handle>(handle, kHandle);
    Tensor *tx = as<Tensor>(x_desc, kTensor), *ty = as<Tensor>(y_desc, kTensor), *tz = as<Tensor>(z_desc, kTensor),
           *tb = as<Tensor>(bias_desc, kTensor);
    Filter* fw = as<Filter>(w_desc, kFilter);
    Convolution* v = as<Convolution>(conv, kConvolution);
    Activation* a = as<Activation>(activation_desc, kActivation);
    STUB_CHECK(h && alpha1 && alpha2 && tx && ty && tz && tb && fw && v && a, kBadParam);
    if (!fits(__func__, *tx, *fw, *ty, *v))
        return kBadParam;
    if (int status = refuses(0, *ty, *v))
        return status;
    if (int status = static_cast<int>(stub::setting("refuse_bias", 0)))
        return status;
    if (unsupported(*tz, *tb, *a, *fw, *ty, algo))
        return kNotSupported;
    const Algorithm* algorithm = find_algorithm(0, algo);
    if (!algorithm)
        return stub::problem(__func__, "an algorithm that no search returned"), kBadParam;
    STUB_CHECK(bytes >= algorithm->memory && (!bytes || stub::on_device(workspace, bytes)), kBadParam);
    STUB_CHECK(stub::on_device(x, tx->bytes()) && stub::on_device(w, fw->bytes()) && stub::on_device(y, ty->bytes()), kBadParam);
    STUB_CHECK(stub::on_device(z, tz->bytes()) && stub::on_device(bias, tb->bytes()), kBadParam);
    // z may be y; x may be neither.
    STUB_CHECK(!overlap(x, tx->bytes(), y, ty->bytes()) && !overlap(x, tx->bytes(), z, tz->bytes()), kBadParam);
    if (!aligned({x, w, z, y}))
        return kMisaligned;
    float of_convolution = *static_cast<const float*>(alpha1), of_z = *static_cast<const float*>(alpha2);
    Tensor dx = *tx, dw = *fw, dy = *ty, dz = *tz, db = *tb;
    Convolution cv = *v;
    size_t used = algorithm->memory;
    bool single = used == 65536, relu = a->mode == kRelu;
    stub::enqueue(h->stream, [=] {
        std::vector<double> result = convolve(0, dx, dw, dy, cv, gather(dx, x), gather(dw, w), single), shift = gather(db, bias);
        std::vector<double> added = of_z == 0 ? std::vector<double>(result.size()) : gather(dz, z);
        if (used)
            memset(workspace, 0xFF, used);
        for (size_t i = 0; i < result.size(); ++i) {
            double sum = of_convolution * result[i] + of_z * added[i] + shift[i % dy.c];
            result[i] = !relu || sum > 0 ? sum : 0;
        }
        scatter(dy, y, result, 1, 0);
    });
    return kSuccess;
}
