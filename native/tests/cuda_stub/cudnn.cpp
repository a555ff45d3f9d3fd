// libcudnn.so.9: the handle, errors and descriptors of the part of the classic API that the program binds.
#include "cudnn.hpp"

#include <cmath>
#include <cstdio>

#include "emulator.hpp"

using namespace cudnn;

namespace {

struct Status {
    int number;
    const char* name;
};
const Status statuses[] = {
    {0, "CUDNN_STATUS_SUCCESS"},
    {1002, "CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH"},
    {1008, "CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED"},
    {2000, "CUDNN_STATUS_BAD_PARAM"},
    {2003, "CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER"},
    {3000, "CUDNN_STATUS_NOT_SUPPORTED"},
    {4004, "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"},
    {5000, "CUDNN_STATUS_EXECUTION_FAILED"},
};

bool is_type(int type) {
    return type == kFloat || type == kHalf || type == kBFloat16;
}

template <class T> int create(const char* function, void** out, uint32_t magic) {
    if (!out)
        return stub::problem(function, "expected an address for the descriptor"), kBadParam;
    T* made = new T;
    made->magic = magic;
    *out = made;
    return kSuccess;
}

} // namespace

namespace cudnn {

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

} // namespace cudnn

STUB_EXPORT size_t cudnnGetVersion() {
    stub::enter(__func__);
    return static_cast<size_t>(stub::setting("cudnn_version", 91900));
}

STUB_EXPORT const char* cudnnGetErrorString(int status) {
    stub::enter(__func__);
    for (const Status& known : statuses) {
        if (known.number == status)
            return known.name;
    }
    return "CUDNN_STATUS_UNKNOWN";
}

STUB_EXPORT void cudnnGetLastErrorString(char* message, size_t size) {
    stub::enter(__func__);
    snprintf(message, size, "%s", "");
}

STUB_EXPORT int cudnnCreate(void** out) {
    STUB_ENTER();
    STUB_CHECK(out && !stub::capturing(), kBadParam);
    *out = new Handle{{kHandle}, nullptr};
    return kSuccess;
}

STUB_EXPORT int cudnnDestroy(void* handle) {
    STUB_ENTER();
    STUB_CHECK(stub::destroy<Handle>(handle, kHandle), kBadParam);
    return kSuccess;
}

STUB_EXPORT int cudnnSetStream(void* handle, void* stream) {
    STUB_ENTER();
    Handle* h = as<Handle>(handle, kHandle);
    STUB_CHECK(h && stream, kBadParam);
    h->stream = stream;
    return kSuccess;
}

#define DESCRIPTOR(Name, magic)                                                                                                            \
    STUB_EXPORT int cudnnCreate##Name##Descriptor(void** out) {                                                                            \
        STUB_ENTER();                                                                                                                      \
        return create<Name>(__func__, out, magic);                                                                                         \
    }                                                                                                                                      \
    STUB_EXPORT int cudnnDestroy##Name##Descriptor(void* handle) {                                                                         \
        STUB_ENTER();                                                                                                                      \
        STUB_CHECK(stub::destroy<Name>(handle, magic), kBadParam);                                                                         \
        return kSuccess;                                                                                                                   \
    }
DESCRIPTOR(Tensor, kTensor)
DESCRIPTOR(Filter, kFilter)
DESCRIPTOR(Convolution, kConvolution)
DESCRIPTOR(Activation, kActivation)

STUB_EXPORT int cudnnSetActivationDescriptor(void* handle, int mode, int nan_option, double coefficient) {
    STUB_ENTER();
    Activation* a = as<Activation>(handle, kActivation);
    STUB_CHECK(a && mode >= 0 && mode <= 6 && (nan_option == 0 || nan_option == 1) && coefficient == coefficient, kBadParam);
    a->mode = mode, a->nan_option = nan_option;
    return kSuccess;
}

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
