/* A consumer in C: the header is C, create and destroy pair, and wrong arguments are answered, not obeyed. Run under sanitizers too. */
#include "hbn.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#include <malloc.h>
#define aligned_alloc(alignment, size) _aligned_malloc(size, alignment)
#define aligned_free _aligned_free
#else
#define aligned_free free
#endif

#define CHECK(condition)                                                                                                                   \
    do {                                                                                                                                   \
        if (!(condition)) {                                                                                                                \
            char text[1024];                                                                                                               \
            hbn_last_error(text, sizeof text);                                                                                             \
            fprintf(stderr, "%s:%d: %s failed; last error: %s\n", __FILE__, __LINE__, #condition, text);                                   \
            return 1;                                                                                                                      \
        }                                                                                                                                  \
    } while (0)

static hbn_tensor tensor(int32_t layout, int32_t n, int32_t c, int32_t h, int32_t w) {
    hbn_tensor t;
    memset(&t, 0, sizeof t);
    t.struct_size = (int32_t)sizeof t;
    t.layout = layout;
    t.n = n;
    t.c = c;
    t.h = h;
    t.w = w;
    t.root_channels = c;
    return t;
}

/* Winograd, where this processor has it: sums of ones are the taps inside the image, and a NaN reaches the output but no padded lane, which
 * later kernels count on to be zero. */
static int winograd(hbn_engine* engine, int32_t block) {
    enum { N = 2, C = 5, O = 3, H = 6, W = 9 };
    hbn_conv_desc conv = {(int32_t)sizeof(hbn_conv_desc), 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, HBN_CONV_WINOGRAD, 0, 0};
    hbn_tensor tensors[5];
    hbn_kernel* kernel = NULL;
    hbn_format* format = NULL;
    int64_t scratch_bytes = 0, weight_bytes = 0;
    float weights[O * C * 9], src[N * C * H * W], dst[N * O * H * W];
    void* addresses[5] = {NULL, NULL, NULL, NULL, NULL};
    void* scratch;
    char name[64];
    int i, n, o, y, x, spoilt;

    tensors[0] = tensor(HBN_BLOCKED, N, C, H, W);
    tensors[1] = tensor(HBN_OPAQUE, O, C, 3, 3);
    tensors[2] = tensor(HBN_ABSENT, 0, 0, 0, 0);
    tensors[3] = tensor(HBN_BLOCKED, N, O, H, W);
    tensors[4] = tensor(HBN_ABSENT, 0, 0, 0, 0);
    CHECK(hbn_conv_forward_create(engine, &conv, tensors, 5, &kernel) == HBN_OK);
    CHECK(hbn_kernel_implementation(kernel, name, (int32_t)sizeof name) == HBN_OK);
    CHECK(strncmp(name, "ref", 3) != 0); /* oneDNN's plain loops, where it has something faster for another layout (arm64: gemm:ref) */
    CHECK(hbn_kernel_format(kernel, 1, &format) == HBN_OK && format != NULL);
    tensors[1].format = format;
    CHECK(hbn_format_query(format, &weight_bytes) == HBN_OK && hbn_kernel_scratch_bytes(kernel, &scratch_bytes) == HBN_OK);
    addresses[0] = aligned_alloc(64, (size_t)(N * block * H * W) * sizeof(float));
    addresses[1] = aligned_alloc(64, (size_t)((weight_bytes + 63) / 64 * 64));
    addresses[3] = aligned_alloc(64, (size_t)(N * block * H * W) * sizeof(float));
    scratch = aligned_alloc(64, (size_t)(scratch_bytes + 64) / 64 * 64);
    for (i = 0; i < O * C * 9; i++) {
        weights[i] = 1;
    }
    for (spoilt = 0; spoilt < 2; spoilt++) {
        for (i = 0; i < N * C * H * W; i++) {
            src[i] = 1;
        }
        if (spoilt) {
            src[0] = NAN;
        }
        CHECK(hbn_tensor_write(engine, &tensors[0], addresses[0], src) == HBN_OK);
        CHECK(hbn_tensor_write(engine, &tensors[1], addresses[1], weights) == HBN_OK);
        CHECK(hbn_kernel_execute(kernel, addresses, 5, scratch, 0, 0) == HBN_OK);
        CHECK(hbn_tensor_read(engine, &tensors[3], addresses[3], dst) == HBN_OK);
        CHECK(spoilt == (isnan(dst[0]) != 0));
        for (n = 0; n < N && strncmp(name, "winograd:hbn", 12) == 0; n++) {
            for (y = 0; y < H; y++) {
                for (x = 0; x < W; x++) {
                    const int taps = (3 - (y == 0) - (y == H - 1)) * (3 - (x == 0) - (x == W - 1));
                    const float* lanes = (const float*)addresses[3] + ((n * H + y) * W + x) * block;
                    for (o = 0; o < O; o++) {
                        CHECK(spoilt || fabsf(dst[((n * O + o) * H + y) * W + x] - (float)(C * taps)) < 1e-4f);
                    }
                    for (o = O; o < block; o++) {
                        CHECK(lanes[o] == 0);
                    }
                }
            }
        }
    }
    hbn_kernel_destroy(kernel);
    hbn_format_destroy(format);
    aligned_free(addresses[0]);
    aligned_free(addresses[1]);
    aligned_free(addresses[3]);
    aligned_free(scratch);
    printf("3x3 by %s: ok\n", name);
    return 0;
}

int main(void) {
    hbn_engine_desc engine_desc = {(int32_t)sizeof(hbn_engine_desc), 0, 0};
    hbn_engine_info info = {.struct_size = (int32_t)sizeof(hbn_engine_info)};
    hbn_engine* engine = NULL;
    int64_t live = -1;
    int32_t bytes = 0, major = 0, minor = 0, patch = 0;

    CHECK(hbn_abi_version() == HBN_ABI_VERSION);
    CHECK(hbn_library_version(&major, &minor, &patch) == HBN_OK && major >= 2);
    CHECK(hbn_struct_size(HBN_STRUCT_TENSOR, &bytes) == HBN_OK && bytes == (int32_t)sizeof(hbn_tensor));
    CHECK(hbn_struct_size(HBN_STRUCT_COUNT, &bytes) == HBN_INVALID_ARGUMENT);
    CHECK(hbn_engine_create(&engine_desc, &engine) == HBN_OK && engine != NULL);
    CHECK(hbn_engine_query(engine, &info) == HBN_OK && info.threads >= 1 && (info.channel_block == 8 || info.channel_block == 16));

    CHECK(winograd(engine, info.channel_block) == 0);

    /* A 1x1 convolution with opaque weights and then batch normalization with ReLU, on blocked tensors. */
    {
        const int32_t n = 2, c = 5, o = 7, h = 6, w = 5, block = info.channel_block;
        hbn_conv_desc conv = {(int32_t)sizeof(hbn_conv_desc), 1, 1, 0, 0, 0, 0, 1, 1, 1, 0, HBN_CONV_AUTO, 0, 0};
        hbn_tensor conv_tensors[5];
        hbn_kernel* kernel = NULL;
        hbn_format* format = NULL;
        int64_t scratch_bytes = 0, weight_bytes = 0;
        float values[7 * 5], back[7 * 5], ones[2 * 5 * 6 * 5], results[2 * 7 * 6 * 5];
        void* addresses[5];
        int i;

        conv_tensors[0] = tensor(HBN_BLOCKED, n, c, h, w);
        conv_tensors[1] = tensor(HBN_OPAQUE, o, c, 1, 1);
        conv_tensors[2] = tensor(HBN_ABSENT, 0, 0, 0, 0);
        conv_tensors[3] = tensor(HBN_BLOCKED, n, o, h, w);
        conv_tensors[4] = tensor(HBN_ABSENT, 0, 0, 0, 0);
        CHECK(hbn_conv_forward_create(engine, &conv, conv_tensors, 5, &kernel) == HBN_OK);
        CHECK(hbn_kernel_format(kernel, 1, &format) == HBN_OK && format != NULL);
        CHECK(hbn_format_query(format, &weight_bytes) == HBN_OK && weight_bytes >= (int64_t)sizeof values);
        CHECK(hbn_kernel_scratch_bytes(kernel, &scratch_bytes) == HBN_OK);
        conv_tensors[1].format = format;

        addresses[0] = aligned_alloc(64, (size_t)(n * block * h * w) * sizeof(float));
        addresses[1] = aligned_alloc(64, (size_t)((weight_bytes + 63) / 64 * 64));
        addresses[2] = NULL;
        addresses[3] = aligned_alloc(64, (size_t)(n * block * h * w) * sizeof(float));
        addresses[4] = NULL;
        void* scratch = aligned_alloc(64, (size_t)(scratch_bytes + 64) / 64 * 64);
        for (i = 0; i < 7 * 5; i++) {
            values[i] = (float)(i % 11) - 5;
        }
        for (i = 0; i < 2 * 5 * 6 * 5; i++) {
            ones[i] = 1;
        }
        CHECK(hbn_tensor_write(engine, &conv_tensors[0], addresses[0], ones) == HBN_OK);
        CHECK(hbn_tensor_write(engine, &conv_tensors[1], addresses[1], values) == HBN_OK);
        CHECK(hbn_tensor_read(engine, &conv_tensors[1], addresses[1], back) == HBN_OK && memcmp(values, back, sizeof values) == 0);
        CHECK(hbn_kernel_execute(kernel, addresses, 5, scratch, 0, 0) == HBN_OK);
        CHECK(hbn_tensor_read(engine, &conv_tensors[3], addresses[3], results) == HBN_OK);
        for (i = 0; i < o; i++) {
            const float expected = values[i * 5] + values[i * 5 + 1] + values[i * 5 + 2] + values[i * 5 + 3] + values[i * 5 + 4];
            CHECK(fabsf(results[i * h * w] - expected) < 1e-5f);
        }
        CHECK(hbn_kernel_execute(kernel, addresses, 3, scratch, 0, 0) == HBN_INVALID_ARGUMENT);
        CHECK(hbn_kernel_execute(NULL, addresses, 5, scratch, 0, 0) == HBN_INVALID_ARGUMENT);
        hbn_kernel_destroy(kernel);
        hbn_format_destroy(format);
        conv_tensors[1].format = NULL;
        for (i = 0; i < 4; i++) {
            aligned_free(addresses[i]);
        }
        aligned_free(scratch);

        conv.struct_size = 3;
        CHECK(hbn_conv_forward_create(engine, &conv, conv_tensors, 5, &kernel) == HBN_INVALID_ARGUMENT && kernel == NULL);
        conv.struct_size = (int32_t)sizeof conv;
        conv_tensors[3].c = 9;
        conv_tensors[3].root_channels = 9;
        CHECK(hbn_conv_forward_create(engine, &conv, conv_tensors, 5, &kernel) == HBN_INVALID_ARGUMENT);
        CHECK(hbn_conv_forward_create(engine, &conv, NULL, 5, &kernel) == HBN_INVALID_ARGUMENT);
        CHECK(hbn_conv_forward_create(engine, NULL, conv_tensors, 5, NULL) == HBN_INVALID_ARGUMENT);
    }

    hbn_engine_destroy(engine);
    hbn_engine_destroy(NULL);
    hbn_kernel_destroy(NULL);
    hbn_format_destroy(NULL);
    CHECK(hbn_live_objects(&live) == HBN_OK && live == 0);
    printf("oneDNN %d.%d.%d, %d threads, channel block %d: ok\n", major, minor, patch, info.threads, info.channel_block);
    return 0;
}
