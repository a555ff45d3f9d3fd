/*
 * hbn.h: the whole C ABI of libhbn, the CPU kernels of HpcBatchNorm. Compiles as C11 and C++17.
 *
 * Everything executable is a kernel. A kernel is created for tensors (descriptions without memory), says how much scratch memory it needs,
 * and is executed on addresses given in the order of those tensors. Creation is slow (code is generated); execution allocates nothing.
 *
 * Rules: README.md beside this folder. In short: every function returns a status unless said otherwise; outputs come last; destroy accepts
 * NULL; the text of the last failure on this thread is read with hbn_last_error; one thread at a time uses an engine and its kernels. N
 * images, C channels, H rows, W columns; element (n, c, y, x).
 *
 * Element types: float32 unless said otherwise. Activations, their gradients (src, dst, residual, diff_...) and the weights of convolutions
 * and inner products may be bfloat16, all of one kernel alike; an inner product's dst then may also be float32. What belongs to parameters
 * otherwise (bias, scale, shift, statistics, diff_weights, diff_bias, diff_scale, diff_shift), logits, probabilities and loss stay float32,
 * and all arithmetic is float32 or better. Stores to bfloat16 round to nearest, ties to even.
 */
#ifndef HBN_H
#define HBN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define HBN_NOEXCEPT noexcept
#else
#define HBN_NOEXCEPT
#endif

#if defined(_WIN32) && defined(hbn_EXPORTS) /* CMake's name for "this is compiled into the library" */
#define HBN_API __declspec(dllexport)
#elif defined(_WIN32)
#define HBN_API __declspec(dllimport)
#elif defined(__GNUC__)
#define HBN_API __attribute__((visibility("default")))
#else
#define HBN_API
#endif

/* Raised whenever a signature, a struct or an enum value of this file changes. */
#define HBN_ABI_VERSION 8

typedef int32_t hbn_status;
enum {
    HBN_OK = 0,
    HBN_INVALID_ARGUMENT = 1, /* null, out of range, wrong struct_size, tensors that do not fit: a bug of the caller */
    HBN_UNSUPPORTED = 2,      /* a valid request that neither oneDNN nor our kernels can fulfil here */
    HBN_OUT_OF_MEMORY = 3,
    HBN_RUNTIME = 4, /* oneDNN failed, or data is not what it must be (a label out of range) */
    HBN_INTERNAL = 5 /* an unexpected exception */
};

typedef struct hbn_engine hbn_engine;
typedef struct hbn_format hbn_format; /* the physical layout of an HBN_OPAQUE tensor */
typedef struct hbn_kernel hbn_kernel;

/* ------------------------------------------------------------------------------------------------------------------------------ library */

/* Returns HBN_ABI_VERSION of the library that was loaded (not a status). */
HBN_API int32_t hbn_abi_version(void) HBN_NOEXCEPT;

/* Returns the name of a status, a constant string: "unsupported" (not a status). */
HBN_API const char* hbn_status_name(hbn_status status) HBN_NOEXCEPT;

/* Copies the text of this thread's last failure, NUL-terminated and cut to capacity; returns its full length without NUL (not a status). */
HBN_API int32_t hbn_last_error(char* text, int32_t capacity) HBN_NOEXCEPT;

/* Version of the oneDNN that was loaded. */
HBN_API hbn_status hbn_library_version(int32_t* major, int32_t* minor, int32_t* patch) HBN_NOEXCEPT;

/* Engines, formats and kernels that exist now, for leak tests. */
HBN_API hbn_status hbn_live_objects(int64_t* count) HBN_NOEXCEPT;

/* sizeof of a struct of this file, for the caller's self-test. */
enum {
    HBN_STRUCT_ENGINE_DESC = 0,
    HBN_STRUCT_ENGINE_INFO = 1,
    HBN_STRUCT_TENSOR = 2,
    HBN_STRUCT_CONV_DESC = 3,
    HBN_STRUCT_INNER_PRODUCT_DESC = 4,
    HBN_STRUCT_BATCH_NORM_DESC = 5,
    HBN_STRUCT_POOL_DESC = 6,
    HBN_STRUCT_LRN_DESC = 7,
    HBN_STRUCT_ACTIVATION_DESC = 8,
    HBN_STRUCT_DROPOUT_DESC = 9,
    HBN_STRUCT_LOSS_DESC = 10,
    HBN_STRUCT_OPTIMIZER_DESC = 11,
    HBN_STRUCT_COUNT = 12
};
HBN_API hbn_status hbn_struct_size(int32_t which, int32_t* bytes) HBN_NOEXCEPT;

/* ------------------------------------------------------------------------------------------------------------------------------- engine */

enum { HBN_ISA_BASELINE = 0, HBN_ISA_AVX2 = 1, HBN_ISA_AVX512 = 2 };

/* bfloat16: in memory only, where oneDNN has none and its primitives work on copies widened to float32; oneDNN's own conversions around
   float32 arithmetic; the processor's own products. */
enum { HBN_BF16_STORAGE = 0, HBN_BF16_EMULATED = 1, HBN_BF16_NATIVE = 2 };

typedef struct hbn_engine_desc {
    int32_t struct_size;
    int32_t threads;      /* OpenMP threads, 0 = one per physical core this process may use */
    int32_t most_threads; /* with threads 0: no more than these, 0 = no limit (a CPU quota, which the caller knows) */
} hbn_engine_desc;

typedef struct hbn_engine_info {
    int32_t struct_size;
    int32_t threads;        /* the team that OpenMP gives, checked */
    int32_t isa;            /* HBN_ISA_*: what our kernels use; follows ONEDNN_MAX_CPU_ISA, which oneDNN reads once a process */
    int32_t channel_block;  /* channels per block of HBN_BLOCKED: 8 or 16 */
    int32_t bf16;           /* HBN_BF16_*; follows ONEDNN_MAX_CPU_ISA too */
    int32_t wanted_threads; /* the team before OpenMP's own limits (OMP_THREAD_LIMIT) */
} hbn_engine_info;

HBN_API hbn_status hbn_engine_create(const hbn_engine_desc* desc, hbn_engine** engine) HBN_NOEXCEPT;
HBN_API hbn_status hbn_engine_query(const hbn_engine* engine, hbn_engine_info* info) HBN_NOEXCEPT;
/* Kernels keep what they need of their engine: the order of destruction does not matter. */
HBN_API void hbn_engine_destroy(hbn_engine* engine) HBN_NOEXCEPT;
/* Sets memory to zero on the engine's threads. Pages that nobody has touched come to lie with the threads that clear them, in turns. */
HBN_API hbn_status hbn_memory_clear(hbn_engine* engine, void* memory, int64_t bytes) HBN_NOEXCEPT;

/* ------------------------------------------------------------------------------------------------------------------------------ tensors */

enum {
    HBN_ABSENT = 0,  /* an optional tensor that is not given */
    HBN_PLAIN = 1,   /* dense NCHW; HBN_UINT8: dense NHWC */
    HBN_BLOCKED = 2, /* [N][C/B][H][W][B] with B = channel_block, C rounded up to a multiple of B, padded channels hold zeros */
    HBN_OPAQUE = 3   /* decided by the first kernel created with the tensor; see format */
};

enum { HBN_FLOAT32 = 0, HBN_INT32 = 1, HBN_UINT8 = 2, HBN_BFLOAT16 = 3 };

/*
 * A tensor without memory. A slice covers channels [channel_offset, channel_offset + c) of every image of a tensor with root_channels
 * channels; its address is that of its first element, rounded down to the start of the block (HBN_BLOCKED). Not a slice: 0 and c.
 */
typedef struct hbn_tensor {
    int32_t struct_size;
    int32_t data_type;
    int32_t layout;
    int32_t n, c, h, w;
    int32_t root_channels;
    int32_t channel_offset;
    int32_t reserved;
    const hbn_format* format; /* HBN_OPAQUE: its layout, NULL while undecided; NULL for the other layouts */
} hbn_tensor;

/* Bytes of a tensor in a format. */
HBN_API hbn_status hbn_format_query(const hbn_format* format, int64_t* bytes) HBN_NOEXCEPT;
HBN_API void hbn_format_destroy(hbn_format* format) HBN_NOEXCEPT;

/* memory = values (n*c*h*w floats in NCHW order); padding becomes zero. For float32 and bfloat16 tensors of any layout that is decided. */
HBN_API hbn_status hbn_tensor_write(hbn_engine* engine, const hbn_tensor* tensor, void* memory, const float* values) HBN_NOEXCEPT;
/* values = memory, in NCHW order. */
HBN_API hbn_status hbn_tensor_read(hbn_engine* engine, const hbn_tensor* tensor, const void* memory, float* values) HBN_NOEXCEPT;

/* ------------------------------------------------------------------------------------------------------------------------------ kernels */

/* Every create function takes its tensors as one array, in the order its comment gives; absent ones have the layout HBN_ABSENT. */

/*
 * addresses[i] belongs to the i-th tensor of the kernel's creation (ignored for absent ones); scratch has at least scratch_bytes, 64-byte
 * aligned. step: counter of dropout's random numbers. learning_rate: of sgd.
 */
HBN_API hbn_status hbn_kernel_execute(hbn_kernel* kernel, void* const* addresses, int32_t count, void* scratch, int64_t step,
                                      float learning_rate) HBN_NOEXCEPT;

HBN_API hbn_status hbn_kernel_scratch_bytes(const hbn_kernel* kernel, int64_t* bytes) HBN_NOEXCEPT;

/* Texts for people, NUL-terminated and cut to capacity: oneDNN's implementation name or "native ..."; internal layout conversions, or "".
 */
HBN_API hbn_status hbn_kernel_implementation(const hbn_kernel* kernel, char* text, int32_t capacity) HBN_NOEXCEPT;
HBN_API hbn_status hbn_kernel_conversions(const hbn_kernel* kernel, char* text, int32_t capacity) HBN_NOEXCEPT;

/* The format the kernel decided for its tensor number `index`, owned by the caller; NULL when that tensor was not undecided. */
HBN_API hbn_status hbn_kernel_format(const hbn_kernel* kernel, int32_t index, hbn_format** format) HBN_NOEXCEPT;

HBN_API void hbn_kernel_destroy(hbn_kernel* kernel) HBN_NOEXCEPT;

/* -------------------------------------------------------------------------------------------------------------------------- convolution */

/* Auto: our own Winograd (float32, 3x3, stride 1, blocked) where it is estimated to be faster, else direct, by the library or by a product
 * of our own where that was measured to be faster. Direct: by the library. Winograd: wherever it can be. */
enum { HBN_CONV_AUTO = 0, HBN_CONV_DIRECT = 1, HBN_CONV_WINOGRAD = 2 };

/* dst[n,o,y,x] = bias[o] + sum weights[o,c,i,j] * src[n, g*C/G + c, y*stride - pad + i*dilation, ...]; dilation 1 = adjacent taps. */
typedef struct hbn_conv_desc {
    int32_t struct_size;
    int32_t stride_h, stride_w;
    int32_t pad_top, pad_left, pad_bottom, pad_right;
    int32_t dilation_h, dilation_w;
    int32_t groups;
    int32_t relu;      /* forward only: 1 = dst = max(0, dst) */
    int32_t algorithm; /* HBN_CONV_ */
    int32_t src_relu;  /* with src_scale ...: 1 = ReLU behind the normalization */
    float src_epsilon; /* with src_scale ... */
} hbn_conv_desc;

/* Tensors: src, weights (O, C/G, kh, kw), bias or absent (1, O, 1, 1), dst, residual or absent. The residual, as dst in shape, layout and
 * type, is added to dst before the ReLU; where it lies at dst's address that takes no memory traffic of its own, elsewhere it is copied to
 * dst first. Then, all or none (and they may be left out): src_scale, src_shift, src_mean, src_variance (1, C, 1, 1), float32: the
 * convolution is that of (src - mean) * scale / sqrt(variance + src_epsilon) + shift, and ReLU of it with src_relu; what the padding adds
 * is zero still. src, blocked, is normalized on its way in by our own kernels, in scratch for the library's. */
HBN_API hbn_status hbn_conv_forward_create(hbn_engine* engine, const hbn_conv_desc* desc, const hbn_tensor* tensors, int32_t count,
                                           hbn_kernel** kernel) HBN_NOEXCEPT;
/* Tensors: diff_dst, weights, diff_src. */
HBN_API hbn_status hbn_conv_backward_data_create(hbn_engine* engine, const hbn_conv_desc* desc, const hbn_tensor* tensors, int32_t count,
                                                 hbn_kernel** kernel) HBN_NOEXCEPT;
/* Tensors: src, diff_dst, diff_weights, diff_bias or absent; then src_scale, src_shift, src_mean, src_variance as in the forward pass. */
HBN_API hbn_status hbn_conv_backward_weights_create(hbn_engine* engine, const hbn_conv_desc* desc, const hbn_tensor* tensors, int32_t count,
                                                    hbn_kernel** kernel) HBN_NOEXCEPT;

/* ------------------------------------------------------------------------------------------------------------------------ inner product */

/* dst[n,o] = bias[o] + sum over (c,y,x) of weights[o,c,y,x] * src[n,c,y,x]. */
typedef struct hbn_inner_product_desc {
    int32_t struct_size;
    int32_t reserved;
} hbn_inner_product_desc;

/* Tensors: src (N, C, H, W), weights (O, C, H, W), bias or absent, dst (N, O, 1, 1). */
HBN_API hbn_status hbn_inner_product_forward_create(hbn_engine* engine, const hbn_inner_product_desc* desc, const hbn_tensor* tensors,
                                                    int32_t count, hbn_kernel** kernel) HBN_NOEXCEPT;
/* Tensors: diff_dst, weights, diff_src. */
HBN_API hbn_status hbn_inner_product_backward_data_create(hbn_engine* engine, const hbn_inner_product_desc* desc, const hbn_tensor* tensors,
                                                          int32_t count, hbn_kernel** kernel) HBN_NOEXCEPT;
/* Tensors: src, diff_dst, diff_weights, diff_bias or absent. */
HBN_API hbn_status hbn_inner_product_backward_weights_create(hbn_engine* engine, const hbn_inner_product_desc* desc,
                                                             const hbn_tensor* tensors, int32_t count, hbn_kernel** kernel) HBN_NOEXCEPT;

/* ------------------------------------------------------------------------------------------------------------------ batch normalization */

enum { HBN_BATCH_NORM_NATIVE = 0, HBN_BATCH_NORM_LIBRARY = 1 };

/*
 * dst = (src - mean) * a + shift (+ residual, then ReLU), a = scale / sqrt(variance + epsilon); statistics per channel over N*H*W values,
 * or per (c,y,x) over N values. Variance is biased; running_variance receives variance * m/(m-1).
 */
typedef struct hbn_batch_norm_desc {
    int32_t struct_size;
    float epsilon;
    float averaging_factor; /* running = (1 - f) * running + f * batch */
    int32_t per_activation; /* 1: parameters are (1, C, H, W) in src's layout; 0: (1, C, 1, 1) */
    int32_t relu;
    int32_t batch_statistics; /* 1: of this batch (mean and variance are outputs of forward); 0: running statistics, constants */
    int32_t algorithm;        /* HBN_BATCH_NORM_LIBRARY: oneDNN's primitive where it fits, else native */
    int32_t stage;
} hbn_batch_norm_desc;

/*
 * With batch statistics, for images that several processes share: the pass stops where their sums are joined. HBN_STAGE_REDUCE: mean and
 * variance of these images (forward; running_mean and running_variance, which must be there, receive what mean and variance lost by
 * rounding to float32, nothing else is written, and the rest is a kernel with running statistics), or diff_scale and
 * diff_shift of these images (backward; diff_src is not written, diff_residual may be). HBN_STAGE_APPLY, backward only: diff_src (and
 * diff_residual) by sums that diff_scale and diff_shift hold, which are read: those of all processes times the share of these images in
 * all. Both have our own kernels.
 */
enum { HBN_STAGE_ALL = 0, HBN_STAGE_REDUCE = 1, HBN_STAGE_APPLY = 2 };

/*
 * Tensors: src, scale, shift, residual or absent, dst, mean, variance, running_mean, running_variance (mean and variance absent with
 * running statistics, the running ones optional with batch statistics). dst and residual may be slices; dst may be src. Without a dst
 * (batch statistics, no residual) the pass makes the statistics and nothing else.
 */
HBN_API hbn_status hbn_batch_norm_forward_create(hbn_engine* engine, const hbn_batch_norm_desc* desc, const hbn_tensor* tensors,
                                                 int32_t count, hbn_kernel** kernel) HBN_NOEXCEPT;
/*
 * Tensors: src, dst or absent (the ReLU mask is dst > 0, or recomputed from src bit for bit as forward computed it), diff_dst, scale,
 * shift, mean, variance, diff_src, diff_scale, diff_shift, diff_residual or absent, second diff_dst or absent. diff_src may be src or
 * diff_dst, diff_residual may be diff_dst. A second diff_dst, only given with diff_residual, is added to diff_dst and the sum rounded to
 * its type.
 */
HBN_API hbn_status hbn_batch_norm_backward_create(hbn_engine* engine, const hbn_batch_norm_desc* desc, const hbn_tensor* tensors,
                                                  int32_t count, hbn_kernel** kernel) HBN_NOEXCEPT;

/* ------------------------------------------------------------------------------------------------------------------------ pooling and LRN
 */

enum { HBN_POOL_MAX = 0, HBN_POOL_AVERAGE_INCLUDE_PADDING = 1, HBN_POOL_AVERAGE_EXCLUDE_PADDING = 2 };

typedef struct hbn_pool_desc {
    int32_t struct_size;
    int32_t kind;
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t pad_top, pad_left, pad_bottom, pad_right;
} hbn_pool_desc;

/* Padding is smaller than the window. A maximum is the first of equal ones; a NaN in a window is its maximum. src and dst may be slices.
   Tensors: src, dst, workspace or absent (opaque: max pooling's backward needs to know the place in its window that won; a byte an output
   where windows have up to 256 places, else 32 bits). */
HBN_API hbn_status hbn_pool_forward_create(hbn_engine* engine, const hbn_pool_desc* desc, const hbn_tensor* tensors, int32_t count,
                                           hbn_kernel** kernel) HBN_NOEXCEPT;
/* diff_src is overwritten. Tensors: diff_dst, workspace or absent, diff_src. */
HBN_API hbn_status hbn_pool_backward_create(hbn_engine* engine, const hbn_pool_desc* desc, const hbn_tensor* tensors, int32_t count,
                                            hbn_kernel** kernel) HBN_NOEXCEPT;

/* dst[c] = src[c] * (k + alpha/size * sum of src[c']^2 over the size channels around c)^-beta */
typedef struct hbn_lrn_desc {
    int32_t struct_size;
    int32_t size;
    float alpha, beta, k;
} hbn_lrn_desc;

/* Tensors: src, dst, workspace or absent. */
HBN_API hbn_status hbn_lrn_forward_create(hbn_engine* engine, const hbn_lrn_desc* desc, const hbn_tensor* tensors, int32_t count,
                                          hbn_kernel** kernel) HBN_NOEXCEPT;
/* Tensors: src, diff_dst, workspace, diff_src. */
HBN_API hbn_status hbn_lrn_backward_create(hbn_engine* engine, const hbn_lrn_desc* desc, const hbn_tensor* tensors, int32_t count,
                                           hbn_kernel** kernel) HBN_NOEXCEPT;

/* ------------------------------------------------------------------------------------------------------------------- element by element */

/* x * normal distribution(x) with the exact erf; x * sigmoid(x); x * clamp(x + 3, 0, 6) / 6. */
enum { HBN_RELU = 0, HBN_SIGMOID = 1, HBN_TANH = 2, HBN_GELU = 3, HBN_SILU = 4, HBN_HARD_SWISH = 5 };

typedef struct hbn_activation_desc {
    int32_t struct_size;
    int32_t function;
} hbn_activation_desc;

/* Tensors: src, dst (may be src). */
HBN_API hbn_status hbn_activation_forward_create(hbn_engine* engine, const hbn_activation_desc* desc, const hbn_tensor* tensors,
                                                 int32_t count, hbn_kernel** kernel) HBN_NOEXCEPT;
/* Tensors: dst (HBN_RELU, HBN_SIGMOID, HBN_TANH) or src (the others), diff_dst, diff_src (may be diff_dst). */
HBN_API hbn_status hbn_activation_backward_create(hbn_engine* engine, const hbn_activation_desc* desc, const hbn_tensor* tensors,
                                                  int32_t count, hbn_kernel** kernel) HBN_NOEXCEPT;

/* Element i (NCHW order) is kept when word i%4 of Philox4x32-10(counter (i/4, stream, step), key seed) >= threshold; kept ones times
 * kept_scale. */
typedef struct hbn_dropout_desc {
    int32_t struct_size;
    uint32_t threshold;
    float kept_scale;
    uint32_t stream;
    uint64_t seed;
} hbn_dropout_desc;

/* Tensors: src, dst (may be src). The same kernel applied to diff_dst is the backward pass. */
HBN_API hbn_status hbn_dropout_create(hbn_engine* engine, const hbn_dropout_desc* desc, const hbn_tensor* tensors, int32_t count,
                                      hbn_kernel** kernel) HBN_NOEXCEPT;

/* Tensors: src, dst: any two layouts, any slices, float32 or bfloat16 each. */
HBN_API hbn_status hbn_copy_create(hbn_engine* engine, const hbn_tensor* tensors, int32_t count, hbn_kernel** kernel) HBN_NOEXCEPT;

/* Tensors: dst, src... (one layout, any slices; dst may be the first src). */
HBN_API hbn_status hbn_sum_create(hbn_engine* engine, const hbn_tensor* tensors, int32_t count, hbn_kernel** kernel) HBN_NOEXCEPT;

/* Tensors: src (HBN_UINT8, NHWC), dst. dst[n,c,y,x] = (src[n,y,x,c] - mean[c]) * inverse_deviation[c]; both arrays have c floats and are
 * copied. */
HBN_API hbn_status hbn_input_create(hbn_engine* engine, const hbn_tensor* tensors, int32_t count, const float* mean,
                                    const float* inverse_deviation, hbn_kernel** kernel) HBN_NOEXCEPT;

/* ------------------------------------------------------------------------------------------------------------------- loss and optimizer */

typedef struct hbn_loss_desc {
    int32_t struct_size;
    float label_smoothing;
    float weight;
    int32_t binary;
    float target_threshold; /* binary: targets above it are 1, others 0; 0: as they are */
    int32_t reserved;
} hbn_loss_desc;

/*
 * probabilities = softmax(logits); loss[0] = weight * mean cross-entropy against (1-s)*onehot + s/classes; diff_logits = weight * (p - t) /
 * N. With second labels and label weights w the one-hot part is w * onehot(label) + (1 - w) * onehot(second). With binary: loss[0] = weight
 * * mean over images and classes of the binary cross-entropy of sigmoid(logits), diff_logits = weight * (sigmoid - t) / (N * classes).
 * Tensors: logits (N, classes, 1, 1), labels (HBN_INT32), probabilities, loss (1, 1, 1, 1), diff_logits or absent (float32 or bfloat16),
 * second labels or absent (HBN_INT32), label weights or absent (float32).
 * Execution fails with HBN_RUNTIME when a label is not in 0 .. classes-1.
 */
HBN_API hbn_status hbn_loss_create(hbn_engine* engine, const hbn_loss_desc* desc, const hbn_tensor* tensors, int32_t count,
                                   hbn_kernel** kernel) HBN_NOEXCEPT;

/* Softmax over channels. Tensors: src (N, classes, 1, 1), dst (may be src). */
HBN_API hbn_status hbn_softmax_create(hbn_engine* engine, const hbn_tensor* tensors, int32_t count, hbn_kernel** kernel) HBN_NOEXCEPT;

typedef struct hbn_optimizer_desc {
    int32_t struct_size;
    int32_t nesterov;
    float mu;
    float weight_decay;
    float maximum_norm; /* clip */
    float decay;        /* average */
    int32_t count;      /* accumulate: micro-batches */
    int32_t rate_outside;
    float rate_factor;   /* sgd, adam: multiplies the learning rate */
    float epsilon;       /* adam */
    int32_t trust_ratio; /* adam: LAMB's */
    int32_t reserved;
    double beta1, beta2; /* adam */
} hbn_optimizer_desc;

/*
 * With learning_rate times rate_factor in the place of learning_rate:
 * g = gradient_scale * gradient + weight_decay * parameter; momentum = mu * momentum - learning_rate * g;
 * parameter += momentum, or with nesterov mu * momentum - learning_rate * g.
 * With rate_outside (PyTorch's form): momentum = mu * momentum + g; parameter -= learning_rate * momentum, or with nesterov
 * learning_rate * (g + mu * momentum).
 * Tensors: gradient_scale or absent, then (parameter, gradient, momentum) repeated; each three share one physical layout.
 */
HBN_API hbn_status hbn_sgd_create(hbn_engine* engine, const hbn_optimizer_desc* desc, const hbn_tensor* tensors, int32_t count,
                                  hbn_kernel** kernel) HBN_NOEXCEPT;
/*
 * Adam with decoupled weight decay, update number t = step + 1: g = gradient_scale * gradient; first = beta1 * first + (1 - beta1) * g;
 * second = beta2 * second + (1 - beta2) * g * g; u = first / (1 - beta1^t) / (sqrt(second / (1 - beta2^t)) + epsilon) + weight_decay *
 * parameter; parameter -= rate_factor * learning_rate * u. With trust_ratio (LAMB) the step is multiplied by norm(parameter) / norm(u) of
 * each tensor, by 1 where one of them is 0.
 * Tensors: gradient_scale or absent, then (parameter, gradient, first, second) repeated; each four share one physical layout.
 */
HBN_API hbn_status hbn_adam_create(hbn_engine* engine, const hbn_optimizer_desc* desc, const hbn_tensor* tensors, int32_t count,
                                   hbn_kernel** kernel) HBN_NOEXCEPT;
/* copy = parameter, rounded; the two may lie differently. Tensors: (parameter (float32), copy (bfloat16)) repeated. */
HBN_API hbn_status hbn_convert_create(hbn_engine* engine, const hbn_tensor* tensors, int32_t count, hbn_kernel** kernel) HBN_NOEXCEPT;
/* gradient_scale = min(1, maximum_norm / norm), 1 when norm is 0. Tensors: gradient_scale, norm, gradient... */
HBN_API hbn_status hbn_clip_create(hbn_engine* engine, const hbn_optimizer_desc* desc, const hbn_tensor* tensors, int32_t count,
                                   hbn_kernel** kernel) HBN_NOEXCEPT;
/*
 * sum = gradient / count when the step is a multiple of count, else sum + gradient / count. Tensors: (gradient, sum) repeated; each two
 * share one physical layout.
 */
HBN_API hbn_status hbn_accumulate_create(hbn_engine* engine, const hbn_optimizer_desc* desc, const hbn_tensor* tensors, int32_t count,
                                         hbn_kernel** kernel) HBN_NOEXCEPT;
/* average = decay * average + (1 - decay) * source. Tensors: (source, average) repeated; each two share one physical layout. */
HBN_API hbn_status hbn_average_create(hbn_engine* engine, const hbn_optimizer_desc* desc, const hbn_tensor* tensors, int32_t count,
                                      hbn_kernel** kernel) HBN_NOEXCEPT;

/* ------------------------------------------------------------------------------------------------------------------------------- probes */

enum {
    HBN_PROBE_MULTIPLY_ADD = 0, /* float32 operations per second, two per multiply-add */
    HBN_PROBE_DOT_BF16 = 1,     /* the same of bfloat16 dot products into float32; 0 where the processor has none */
    HBN_PROBE_TRIAD = 2         /* bytes per second of a = b + s*c beyond every cache, as the program counts them: two reads, one write */
};

/* What this machine can do at best on the engine's threads; takes a fraction of a second, the triad 288 MiB. */
HBN_API hbn_status hbn_probe(hbn_engine* engine, int32_t what, double* rate) HBN_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif
