// The arithmetic that is our own, as a table of functions. kernels.cpp is compiled once per instruction set and fills one table each;
// engine.cpp picks the table. Only plain data crosses: no template or inline function of the standard library may be instantiated in
// kernels.cpp, or the linker could hand its AVX-512 copy to everybody.
#ifndef HBN_KERNELS_HPP
#define HBN_KERNELS_HPP

#include <stdint.h>

namespace hbn {

// How an activation's elements are stored. All arithmetic is in single precision or better; stores round to nearest, ties to even.
enum class Element : int32_t { Float32, BFloat16 };

// An activation tensor in memory. block is 1 for plain NCHW, else the channels per block; lane is the first channel's place in its block.
struct View {
    void* data;
    int64_t image_stride; // elements from one image to the next
    int32_t block;
    int32_t lane;
    bool owns_padding; // the padded channels after the last one belong to this tensor, and are kept zero
    Element element;
};

// Per-channel (or per-activation) values: `count` are real, the rest up to `padded` are zeros that the kernel keeps zero.
struct Values {
    float* data;
    int64_t padded;
};

struct Extent {
    int64_t images, channels, area; // area = H * W
};

// Batch normalization over several processes stops in the middle, where the sums of all are joined. Reduce: the sums of this process alone
// (mean and variance, or diff_scale and diff_shift) and nothing else. Apply: diff_src, by the sums that diff_scale and diff_shift hold.
enum class Stage : int32_t { All, Reduce, Apply };

// All views of a batch normalization have one element type.
struct BatchNormForward {
    Extent extent;
    View src, dst, residual; // residual.data may be null; dst.data too, with batch statistics, of which there is nothing else then
    Values scale, shift;
    Values mean, variance;                 // outputs; null with running statistics
    Values running_mean, running_variance; // updated (batch statistics), or the statistics used
    bool per_activation, relu, batch_statistics;
    float epsilon, averaging_factor;
    double* scratch;          // batch_norm_scratch() doubles
    Stage stage = Stage::All; // or Reduce; what follows that is the pass with running statistics
};

struct BatchNormBackward {
    Extent extent;
    View src, dst, diff_dst, diff_src, diff_residual; // dst.data and diff_residual.data may be null
    View second_diff_dst;                             // its data may be null; is given with diff_residual only
    Values scale, shift, mean, variance, diff_scale, diff_shift;
    bool per_activation, relu, batch_statistics;
    float epsilon;
    double* scratch;
    Stage stage = Stage::All;
};

// Nonlinearities that select. oneDNN's make a number of NaN (maximum and minimum as IEEE 754-2008 has them) or let a masked one through.
enum class Selection : int32_t { Relu, ReluGradient, HardSwish, HardSwishGradient };

// dst = f(src), or f'(src) * diff_dst, where src is what the forward pass kept. One layout, one element type; dst may be src or diff_dst.
struct Select {
    Selection function;
    Extent extent;
    View src, diff_dst, dst; // diff_dst.data may be null
};

struct Dropout {
    Extent extent;
    View src, dst;
    uint64_t seed;
    uint32_t stream, threshold;
    float kept_scale;
    int64_t step;
};

struct Input {
    Extent extent;
    const uint8_t* src; // NHWC
    View dst;
    const float* mean;
    const float* inverse_deviation;
};

// dst is the pooled tensor, src the one under the windows; backward they are their gradients. index is a whole tensor shaped and blocked
// like dst: which position of its window won, in row-major order, as a byte where a window has up to 256 positions, else as 32 bits.
struct Pooling {
    int64_t images, channels;
    int64_t src_h, src_w, dst_h, dst_w;
    int64_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left;
    bool maximum, whole_window; // whole_window: an average divides by all positions of its window, not by those inside the image
    View src, dst, index;       // index.data null: none is kept
};

// Rows of `classes` logits; strides in floats. labels null: softmax only.
struct Loss {
    int64_t rows, classes;
    const float* logits;
    int64_t logits_stride;
    const int32_t* labels;
    float* probabilities;
    int64_t probabilities_stride;
    float* loss;
    void* diff_logits; // may be null
    int64_t diff_logits_stride;
    Element diff_logits_element;
    float label_smoothing, weight;
    double* scratch;              // rows doubles
    const int32_t* second_labels; // null, as are label_weights: one label each
    const float* label_weights;   // of the first label
    bool binary;
    float target_threshold;
};

// One contiguous run of floats of every tensor of a group.
struct SgdRun {
    float* parameter;
    const float* gradient;
    float* momentum;
    int64_t count;
};

// One contiguous run of floats of a tensor, and of the one it is added to.
struct Run {
    float* to;
    const float* from;
    int64_t count;
};

// A sum over a run is made of the sums of pieces, added in order.
constexpr int64_t kSumPiece = 16384;
inline int64_t sum_of_squares_pieces(int64_t count) {
    return (count + kSumPiece - 1) / kSumPiece;
}

struct Sgd {
    const SgdRun* runs;
    int64_t run_count;
    float gradient_scale, mu, weight_decay, learning_rate;
    bool nesterov;
    bool rate_outside; // PyTorch's form: the momentum is a sum of gradients, which the learning rate multiplies
};

// The same for Adam.
struct AdamRun {
    float* parameter;
    const float* gradient;
    float *first, *second;
    int64_t count;
    double trust; // written with trust_ratio
};

struct Adam {
    AdamRun* runs;
    int64_t run_count;
    float gradient_scale, beta1, rest1, beta2, rest2; // rest = 1 - beta
    float correction1, correction2;                   // 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t)
    float epsilon, weight_decay, learning_rate;
    bool trust_ratio; // the step of every run is scaled to the length of its parameter
    double* scratch;  // with trust_ratio: twice sum_of_squares_pieces() of all counts added up
};

// A convolution's weights: where element (o, c, y, x) lies, with channels in blocks (1: not in blocks).
struct Weights {
    float* data;
    int64_t block_o, outer_o, inner_o; // o / block_o * outer_o + o % block_o * inner_o, and so for c
    int64_t block_c, outer_c, inner_c;
    int64_t row, column;
};

// A 3x3 convolution of stride 1 by Winograd's algorithm: the shapes, and how its work is cut (src/winograd.cpp). Blocked views of
// one element type.
struct WinogradShape {
    int64_t images;
    int64_t src_channels, src_h, src_w;
    int64_t dst_channels, dst_h, dst_w;
    int64_t pad_top, pad_left;
    int64_t tiles;                  // of 4x4 outputs, that are worked on together: a multiple of 3/2 lanes
    int64_t src_groups, dst_groups; // into which the channels are cut
    int64_t parts;                  // into which a sum over all tiles is cut, whatever the number of threads
    int32_t threads;
    int64_t filter_blocks;    // forward, where tiles are few: blocks of src channels whose filters a thread transforms at a time; else 0
    int64_t src_row, dst_row; // floats from one transformed point to the next
    int64_t filter_gap;       // forward: floats between the filters of one point and the next
    int64_t own_floats;       // scratch of a thread
    float* shared;            // scratch: transformed filters (few tiles: transformed src), or their gradient, once a part
    float* own;               // scratch: own_floats a thread
};

// What a kernel does to src on its way in: (src - mean) * factor + shift, then ReLU if asked, as batch_norm_forward does bit for bit. One
// value per channel, zeros for padded ones; mean null: src is taken as it is. Padding of the image is zero behind it.
struct Normalization {
    const float *mean, *factor, *shift;
    bool relu;
};

struct WinogradForward {
    WinogradShape shape;
    View src, dst, residual; // residual.data may be null, or dst.data
    Weights weights;
    const float* bias; // dst_channels values, or null
    bool relu;
    Normalization normalization;
};

struct WinogradBackwardWeights {
    WinogradShape shape;
    View src, diff_dst;
    Weights diff_weights;
    Values diff_bias; // its data may be null
    Normalization normalization;
};

// A direct convolution as a product of matrices (kernels/gather.inl): the shapes, seen from the product's side (backward-data: src is
// diffDst and dst diffSrc), and how its work is cut (src/gather.cpp). Views as in WinogradShape; one group, adjacent taps.
constexpr int64_t kMostTaps = 49;

struct GatherShape {
    int64_t images;
    int64_t src_channels, src_h, src_w;
    int64_t dst_channels, dst_h, dst_w;
    int64_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left; // the convolution's
    int64_t tile;                                                      // positions that are worked on together, a multiple of 3/2 lanes
    int64_t groups, parts; // backward-weights: into which taps and channels are cut, and into which positions are, whatever the threads
    int32_t threads;
    int64_t row;        // floats from one gathered block of channels to the next
    int64_t own_floats; // scratch of a thread
    float* shared;      // scratch: filters, or the sums of their gradient, once a part
    float* own;         // scratch: own_floats a thread
};

struct GatherForward {
    GatherShape shape;
    View src, dst, residual; // residual.data may be null, or dst.data
    Weights weights;         // backward-data: inputs and outputs exchanged
    const float* bias;       // dst_channels values, or null
    bool relu, backward_data;
    Normalization normalization;
};

struct GatherBackwardWeights {
    GatherShape shape;
    View src, diff_dst;
    Weights diff_weights;
    Normalization normalization;
};

struct Arithmetic {
    void (*batch_norm_forward)(const BatchNormForward&);
    void (*batch_norm_backward)(const BatchNormBackward&);
    // What batch_norm_forward with these statistics subtracts, multiplies with and adds: to receives mean, factor and shift, `padded`
    // floats each, zeros behind the channels.
    void (*batch_norm_affine)(int64_t channels, int64_t padded, const Values& scale, const Values& shift, const Values& mean,
                              const Values& variance, float epsilon, float* to);
    // Masked gradient: dst = mask ? diff_dst : 0, the mask recomputed as batch_norm_backward does.
    void (*batch_norm_mask)(const BatchNormBackward&, const View& dst);
    // Also between element types.
    void (*copy)(const Extent&, const View& src, const View& dst);
    // One element type.
    void (*sum)(const Extent&, const View* srcs, int64_t count, const View& dst);
    void (*zero_padding)(const Extent&, const View&);
    void (*select)(const Select&);
    void (*dropout)(const Dropout&);
    void (*input)(const Input&);
    void (*pool_forward)(const Pooling&);
    void (*pool_backward)(const Pooling&);
    void (*loss)(const Loss&);
    void (*sgd)(const Sgd&);
    void (*adam)(const Adam&);
    // Each one parallel region, however many runs there are; no bit depends on the number of threads.
    // Of all `from`; scratch: sum_of_squares_pieces() of all counts added up.
    double (*sum_of_squares)(const Run* runs, int64_t run_count, double* scratch);
    // to = (first ? 0 : to) + factor * from
    void (*accumulate)(const Run* runs, int64_t run_count, float factor, bool first);
    // to = decay * to + (1 - decay) * from
    void (*average)(const Run* runs, int64_t run_count, float decay);
    // Zeros, each piece first touched by the thread whose turn it is: on machines with several memory nodes every tensor lies on all of
    // them.
    void (*clear)(void* memory, int64_t bytes);
    // Null in the baseline, whose processors oneDNN's direct convolution serves.
    void (*winograd_forward)(const WinogradForward&);
    void (*winograd_backward_weights)(const WinogradBackwardWeights&);
    void (*gather_forward)(const GatherForward&);
    void (*gather_backward_weights)(const GatherBackwardWeights&);
};

extern const Arithmetic arithmetic_baseline, arithmetic_avx2, arithmetic_avx512;

// Doubles of scratch a batch normalization needs.
inline int64_t batch_norm_scratch(const Extent& e, int64_t padded_channels) {
    return 2 * e.images * padded_channels + 4 * padded_channels + 64;
}

} // namespace hbn

#endif
