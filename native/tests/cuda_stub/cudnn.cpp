// libcudnn.so.9: the part of the classic API that the program binds, computed by the definition in double precision.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "emulator.hpp"
#include "stub.hpp"

namespace {

enum { kSuccess = 0, kBadParam = 2000, kNotSupported = 3000 };
enum { kFloat = 0, kHalf = 2, kBFloat16 = 9 };
constexpr uint32_t kHandle = 0xC0DE0201, kTensor = 0xC0DE0202, kFilter = 0xC0DE0203, kConvolution = 0xC0DE0204;

struct Handle {
    uint32_t magic;
    void* stream;
};

struct Tensor {
    uint32_t magic;
    int type = -1, n = 0, c = 0, h = 0, w = 0, ns = 0, cs = 0, hs = 0, ws = 0;

    size_t offset(int in, int ic, int ih, int iw) const {
        return static_cast<size_t>(in) * ns + static_cast<size_t>(ic) * cs + static_cast<size_t>(ih) * hs + static_cast<size_t>(iw) * ws;
    }
    size_t bytes() const { return (offset(n - 1, c - 1, h - 1, w - 1) + 1) * (type == kFloat ? 4 : 2); }
    size_t count() const { return static_cast<size_t>(n) * c * h * w; }
};

struct Filter : Tensor {}; // n, c, h, w are k, c, r, s; memory is KRSC

struct Convolution {
    uint32_t magic;
    int pad_h = -1, pad_w, stride_h, stride_w, dilation_h, dilation_w, groups = 1, math = 0;
};

struct Perf {
    int algo, status;
    float time;
    size_t memory;
    int determinism, math, reserved[3];
};
static_assert(sizeof(Perf) == 48 && offsetof(Perf, memory) == 16 && offsetof(Perf, determinism) == 24 && offsetof(Perf, math) == 28,
              "cudnnConvolutionFwdAlgoPerf_t");

std::string last_error;

template <class T> T* as(void* handle, uint32_t magic) {
    return handle && *static_cast<uint32_t*>(handle) == magic ? static_cast<T*>(handle) : nullptr;
}

bool is_type(int type) {
    return type == kFloat || type == kHalf || type == kBFloat16;
}

double get(const void* data, int type, size_t i) {
    if (type == kFloat)
        return static_cast<const float*>(data)[i];
    uint16_t bits = static_cast<const uint16_t*>(data)[i];
    return type == kHalf ? hbn_half_to_float(bits) : __uint_as_float(static_cast<unsigned>(bits) << 16);
}

void put(void* data, int type, size_t i, double value) {
    float f = static_cast<float>(value);
    if (type == kFloat) {
        static_cast<float*>(data)[i] = f;
    } else if (type == kHalf) {
        static_cast<uint16_t*>(data)[i] = hbn_float_to_half(f);
    } else {
        unsigned bits = __float_as_uint(f);
        static_cast<uint16_t*>(data)[i] = static_cast<uint16_t>(std::isnan(f) ? 0x7FC0u : (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
    }
}

// All values in NHWC order.
std::vector<double> gather(const Tensor& t, const void* data) {
    std::vector<double> values;
    values.reserve(t.count());
    for (int n = 0; n < t.n; ++n)
        for (int h = 0; h < t.h; ++h)
            for (int w = 0; w < t.w; ++w)
                for (int c = 0; c < t.c; ++c)
                    values.push_back(get(data, t.type, t.offset(n, c, h, w)));
    return values;
}

void scatter(const Tensor& t, void* data, const std::vector<double>& values, float alpha, float beta) {
    size_t i = 0;
    for (int n = 0; n < t.n; ++n)
        for (int h = 0; h < t.h; ++h)
            for (int w = 0; w < t.w; ++w)
                for (int c = 0; c < t.c; ++c, ++i) {
                    size_t at = t.offset(n, c, h, w);
                    put(data, t.type, at, alpha * values[i] + (beta == 0 ? 0 : beta * get(data, t.type, at)));
                }
}

// x: src, w: weights, y: dst; the one of `pass` is computed from the two others.
std::vector<double> convolve(int pass, const Tensor& x, const Tensor& w, const Tensor& y, const Convolution& v,
                             const std::vector<double>& a, const std::vector<double>& b) {
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
                                    sum += a[from + c] * b[at_w + c];
                                result[at_y + k] += sum;
                            } else if (pass == 1) { // a: weights, b: diffDst
                                for (int c = 0; c < c_group; ++c)
                                    result[from + c] += a[at_w + c] * b[at_y + k];
                            } else { // a: src, b: diffDst
                                for (int c = 0; c < c_group; ++c)
                                    result[at_w + c] += a[from + c] * b[at_y + k];
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

int refuses(const Convolution& v) {
    return v.groups > 1 && stub::setting("refuse_groups", 0) ? kNotSupported : kSuccess;
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
    if (int status = refuses(v))
        return status;
    stub::finish();
    stub::Access access;
    memset(c, 0xFF, c_bytes);
    memset(workspace, 0xFF, workspace_bytes < 65536 ? workspace_bytes : 65536);
    *returned = 0;
    for (const Algorithm& algorithm : algorithms[pass]) {
        if (*returned < requested && algorithm.memory <= workspace_bytes) {
            results[(*returned)++] =
                Perf{algorithm.number, 0, algorithm.time, algorithm.memory, algorithm.deterministic, v.math == 3 ? 3 : 0, {0, 0, 0}};
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
    if (int status = refuses(v))
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
    float al = *static_cast<const float*>(alpha), be = *static_cast<const float*>(beta);
    Tensor ta = a, tb = b, tc = c, tx = x, tw = w, ty = y;
    Convolution cv = v;
    size_t used = algorithm->memory;
    stub::enqueue(h->stream, [=] {
        std::vector<double> result = convolve(pass, tx, tw, ty, cv, gather(ta, a_data), gather(tb, b_data));
        if (used)
            memset(workspace, 0xFF, used);
        scatter(tc, c_data, result, al, be);
    });
    return kSuccess;
}

} // namespace

STUB_EXPORT size_t cudnnGetVersion() {
    stub::enter(__func__);
    return static_cast<size_t>(stub::setting("cudnn_version", 91900));
}

STUB_EXPORT const char* cudnnGetErrorString(int status) {
    stub::enter(__func__);
    switch (status) {
    case 0:
        return "CUDNN_STATUS_SUCCESS";
    case 1002:
        return "CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH";
    case 1008:
        return "CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED";
    case 2000:
        return "CUDNN_STATUS_BAD_PARAM";
    case 3000:
        return "CUDNN_STATUS_NOT_SUPPORTED";
    case 4004:
        return "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED";
    case 5000:
        return "CUDNN_STATUS_EXECUTION_FAILED";
    default:
        return "CUDNN_STATUS_UNKNOWN";
    }
}

STUB_EXPORT void cudnnGetLastErrorString(char* message, size_t size) {
    stub::enter(__func__);
    snprintf(message, size, "%s", last_error.c_str());
}

STUB_EXPORT int cudnnCreate(void** out) {
    STUB_ENTER();
    STUB_CHECK(out && !stub::capturing(), kBadParam);
    *out = new Handle{kHandle, nullptr};
    return kSuccess;
}

STUB_EXPORT int cudnnDestroy(void* handle) {
    STUB_ENTER();
    Handle* h = as<Handle>(handle, kHandle);
    STUB_CHECK(h, kBadParam);
    h->magic = 0;
    delete h;
    return kSuccess;
}

STUB_EXPORT int cudnnSetStream(void* handle, void* stream) {
    STUB_ENTER();
    Handle* h = as<Handle>(handle, kHandle);
    STUB_CHECK(h && stream, kBadParam);
    h->stream = stream;
    return kSuccess;
}

#define DESCRIPTOR(Name, Type, magic)                                                                                                      \
    STUB_EXPORT int cudnnCreate##Name##Descriptor(void** out) {                                                                            \
        STUB_ENTER();                                                                                                                      \
        STUB_CHECK(out, kBadParam);                                                                                                        \
        Type* made = new Type;                                                                                                             \
        *reinterpret_cast<uint32_t*>(made) = magic;                                                                                        \
        *out = made;                                                                                                                       \
        return kSuccess;                                                                                                                   \
    }                                                                                                                                      \
    STUB_EXPORT int cudnnDestroy##Name##Descriptor(void* handle) {                                                                         \
        STUB_ENTER();                                                                                                                      \
        Type* made = as<Type>(handle, magic);                                                                                              \
        STUB_CHECK(made, kBadParam);                                                                                                       \
        *reinterpret_cast<uint32_t*>(made) = 0;                                                                                            \
        delete made;                                                                                                                       \
        return kSuccess;                                                                                                                   \
    }
DESCRIPTOR(Tensor, Tensor, kTensor)
DESCRIPTOR(Filter, Filter, kFilter)
DESCRIPTOR(Convolution, Convolution, kConvolution)

STUB_EXPORT int cudnnSetTensor4dDescriptorEx(void* handle, int type, int n, int c, int h, int w, int ns, int cs, int hs, int ws) {
    STUB_ENTER();
    Tensor* t = as<Tensor>(handle, kTensor);
    STUB_CHECK(t && is_type(type), kBadParam);
    STUB_CHECK(n > 0 && c > 0 && h > 0 && w > 0 && ns > 0 && cs > 0 && hs > 0 && ws > 0, kBadParam);
    // NHWC, dense or with rows further apart than their channels.
    STUB_CHECK(cs == 1 && ws >= c && hs == w * ws && ns == h * hs, kBadParam);
    t->type = type;
    t->n = n, t->c = c, t->h = h, t->w = w, t->ns = ns, t->cs = cs, t->hs = hs, t->ws = ws;
    return kSuccess;
}

STUB_EXPORT int cudnnSetFilter4dDescriptor(void* handle, int type, int format, int k, int c, int r, int s) {
    STUB_ENTER();
    Filter* f = as<Filter>(handle, kFilter);
    STUB_CHECK(f && is_type(type) && format == 1 /* CUDNN_TENSOR_NHWC */ && k > 0 && c > 0 && r > 0 && s > 0, kBadParam);
    f->type = type;
    f->n = k, f->c = c, f->h = r, f->w = s, f->cs = 1, f->ws = c, f->hs = s * c, f->ns = r * s * c;
    return kSuccess;
}

STUB_EXPORT int cudnnSetConvolution2dDescriptor(void* handle, int pad_h, int pad_w, int u, int v, int dilation_h, int dilation_w, int mode,
                                                int type) {
    STUB_ENTER();
    Convolution* d = as<Convolution>(handle, kConvolution);
    STUB_CHECK(d && pad_h >= 0 && pad_w >= 0 && u > 0 && v > 0 && dilation_h > 0 && dilation_w > 0, kBadParam);
    STUB_CHECK(mode == 1 /* CUDNN_CROSS_CORRELATION */ && type == kFloat, kBadParam);
    d->pad_h = pad_h, d->pad_w = pad_w, d->stride_h = u, d->stride_w = v, d->dilation_h = dilation_h, d->dilation_w = dilation_w;
    return kSuccess;
}

STUB_EXPORT int cudnnSetConvolutionMathType(void* handle, int type) {
    STUB_ENTER();
    Convolution* d = as<Convolution>(handle, kConvolution);
    STUB_CHECK(d && type >= 0 && type <= 3, kBadParam);
    d->math = type;
    return kSuccess;
}

STUB_EXPORT int cudnnSetConvolutionGroupCount(void* handle, int groups) {
    STUB_ENTER();
    Convolution* d = as<Convolution>(handle, kConvolution);
    STUB_CHECK(d && groups > 0, kBadParam);
    d->groups = groups;
    return kSuccess;
}

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
