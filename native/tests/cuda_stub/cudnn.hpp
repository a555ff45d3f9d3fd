// What the parts of libcudnn.so.9 share: statuses, descriptors, and the way from their memory to values and back.
#pragma once

#include <vector>

#include "stub.hpp"

namespace cudnn {

enum { kSuccess = 0, kBadParam = 2000, kMisaligned = 2003, kNotSupported = 3000 };
enum { kFloat = 0, kHalf = 2, kBFloat16 = 9 };
constexpr uint32_t kHandle = 0xC0DE0201, kTensor = 0xC0DE0202, kFilter = 0xC0DE0203, kConvolution = 0xC0DE0204, kActivation = 0xC0DE0205;
enum { kRelu = 1, kIdentity = 5 };

using stub::as;
using stub::Object;

struct Handle : Object {
    void* stream;
};

struct Tensor : Object {
    int type = -1, n = 0, c = 0, h = 0, w = 0, ns = 0, cs = 0, hs = 0, ws = 0;

    size_t offset(int in, int ic, int ih, int iw) const {
        return static_cast<size_t>(in) * ns + static_cast<size_t>(ic) * cs + static_cast<size_t>(ih) * hs + static_cast<size_t>(iw) * ws;
    }
    size_t bytes() const { return (offset(n - 1, c - 1, h - 1, w - 1) + 1) * (type == kFloat ? 4 : 2); }
    size_t count() const { return static_cast<size_t>(n) * c * h * w; }
};

struct Filter : Tensor {}; // n, c, h, w are k, c, r, s; memory is KRSC

struct Convolution : Object {
    int pad_h = -1, pad_w, stride_h, stride_w, dilation_h, dilation_w, groups = 1, math = 0;
};

struct Activation : Object {
    int mode = -1, nan_option;
};

// Element i of fp32 or 16-bit memory.
double get(const void* data, int type, size_t i);
void put(void* data, int type, size_t i, double value);

// All values in NHWC order, and back: alpha * values + beta * what is there.
std::vector<double> gather(const Tensor& t, const void* data);
void scatter(const Tensor& t, void* data, const std::vector<double>& values, float alpha, float beta);

} // namespace cudnn
