// Loss, optimizer, clipping and averaging. All in fp32 except the gradient of the logits.

// One block per image. loss[0] = weight * mean over the batch of the cross-entropy against (1 - smoothing) * onehot(label) + smoothing /
// classes.
HBN_KERNEL(softmax_cross_entropy)
(const float* logits, const int* labels, float* probabilities, float* losses, float* loss, elem* diff_logits, int images, int classes,
 float smoothing, float weight, const float* loss_scale, u32* counter) {
    const float* z = logits + static_cast<u32>(blockIdx.x) * classes;
    float* p = probabilities + static_cast<u32>(blockIdx.x) * classes;
    int label = labels[blockIdx.x];
    float largest = z[0];
    for (int k = threadIdx.x; k < classes; k += blockDim.x)
        largest = fmaxf(largest, z[k]);
    largest = block_max(largest);
    float exponentials = 0, distances = 0;
    for (int k = threadIdx.x; k < classes; k += blockDim.x) {
        float d = z[k] - largest;
        exponentials += expf(d);
        distances += d;
    }
    exponentials = block_sum(exponentials);
    distances = block_sum(distances);
    float rest = smoothing / static_cast<float>(classes), scale = weight / static_cast<float>(images);
    scale *= loss_scale ? loss_scale[0] : 1.0f;
    // Nothing can be thrown from here: a label that is none makes the loss NaN.
    float of_label = label >= 0 && label < classes ? z[label] - largest : __uint_as_float(0x7FC00000u);
    __syncthreads();
    for (int k = threadIdx.x; k < classes; k += blockDim.x) {
        float probability = expf(z[k] - largest) / exponentials;
        float target = k == label ? 1.0f - smoothing + rest : rest;
        p[k] = probability;
        if (diff_logits)
            diff_logits[static_cast<u32>(blockIdx.x) * classes + k] = narrow(scale * (probability - target));
    }
    // The targets add up to 1, so -sum t * log p = log sum exp - sum t * (z - largest). A logit of -infinity whose target is 0 adds
    // nothing.
    if (threadIdx.x == 0) {
        float own = 1.0f - smoothing;
        losses[blockIdx.x] = logf(exponentials) - (own == 0 && label >= 0 && label < classes ? 0.0f : own * of_label) -
                             (rest == 0 ? 0.0f : rest * distances);
    }
    if (!is_last_block(counter, gridDim.x))
        return;
    float sum = 0;
    for (int n = threadIdx.x; n < images; n += blockDim.x)
        sum += losses[n];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        loss[0] = weight * (sum / static_cast<float>(images));
}

// One block per row; dst may be src.
HBN_KERNEL(softmax)(const float* src, float* dst, int classes) {
    const float* z = src + static_cast<u32>(blockIdx.x) * classes;
    float* p = dst + static_cast<u32>(blockIdx.x) * classes;
    float largest = z[0];
    for (int k = threadIdx.x; k < classes; k += blockDim.x)
        largest = fmaxf(largest, z[k]);
    largest = block_max(largest);
    float exponentials = 0;
    for (int k = threadIdx.x; k < classes; k += blockDim.x)
        exponentials += expf(z[k] - largest);
    exponentials = block_sum(exponentials);
    for (int k = threadIdx.x; k < classes; k += blockDim.x)
        p[k] = expf(z[k] - largest) / exponentials;
}

// A piece of one tensor of a group: a block's work. Which of the addresses are used is the kernel's affair. A gradient may lie in the
// element type, as a library has left it.
struct Piece {
    float *a, *b, *c, *d;
    u32 count, narrow_gradient;
};

HBN_DEVICE float read_gradient(const Piece& piece, const float* gradient, u32 i) {
    return piece.narrow_gradient ? widen(reinterpret_cast<const elem*>(gradient)[i]) : gradient[i];
}

// v = mu * v - e * g, with g = scale * gradient + decay * parameter; parameter += v, or with Nesterov mu * v - e * g. With rate_outside
// PyTorch's form: v = mu * v + g; parameter -= e * v, or with Nesterov e * (g + mu * v). Nothing where the loss scale says that the
// gradients overflowed.
HBN_KERNEL(sgd)
(const Piece* pieces, const StepState* state, const float* gradient_scale, const float* loss_scale, float mu, int nesterov, float decay,
 int rate_outside, float rate_factor) {
    if (loss_scale && loss_scale[2] != 0)
        return;
    Piece piece = pieces[blockIdx.x];
    float rate = rate_factor * state->learning_rate, scale = gradient_scale ? gradient_scale[0] : 1.0f;
    for (u32 i = threadIdx.x; i < piece.count; i += blockDim.x) {
        float w = piece.a[i], g = scale * read_gradient(piece, piece.b, i) + decay * w;
        if (rate_outside) {
            float v = mu * piece.c[i] + g;
            piece.c[i] = v;
            piece.a[i] = w - rate * (nesterov ? g + mu * v : v);
        } else {
            float v = mu * piece.c[i] - rate * g;
            piece.c[i] = v;
            piece.a[i] = w + (nesterov ? mu * v - rate * g : v);
        }
    }
}

// 1 - beta^t, from the logarithm of beta in two parts.
HBN_DEVICE double adam_correction(float log_high, float log_low, double t) {
    return -expm1(t * (static_cast<double>(log_high) + static_cast<double>(log_low)));
}

// Adam with decoupled weight decay of parameter (a) by gradient (b), with first (c) and second (d) moment; update t is the number of the
// step, from 1 on, less the steps that overflowed, which change nothing.
HBN_KERNEL(adam)
(const Piece* pieces, const StepState* state, const float* gradient_scale, const float* loss_scale, float beta1, float rest1,
 float log1_high, float log1_low, float beta2, float rest2, float log2_high, float log2_low, float epsilon, float decay,
 float rate_factor) {
    if (loss_scale && loss_scale[2] != 0)
        return;
    Piece piece = pieces[blockIdx.x];
    u64 step = static_cast<u64>(state->step_high) << 32 | state->step_low;
    double t = static_cast<double>(step) + 1 - (loss_scale ? static_cast<double>(loss_scale[3]) : 0);
    t = t < 1 ? 1 : t;
    float rate = rate_factor * state->learning_rate, scale = gradient_scale ? gradient_scale[0] : 1.0f;
    float correction1 = static_cast<float>(1 / adam_correction(log1_high, log1_low, t));
    float correction2 = static_cast<float>(1 / sqrt(adam_correction(log2_high, log2_low, t)));
    for (u32 i = threadIdx.x; i < piece.count; i += blockDim.x) {
        float g = scale * read_gradient(piece, piece.b, i), m = beta1 * piece.c[i] + rest1 * g, v = beta2 * piece.d[i] + rest2 * (g * g);
        piece.c[i] = m;
        piece.d[i] = v;
        piece.a[i] -= rate * (correction1 * m / (correction2 * sqrtf(v) + epsilon) + decay * piece.a[i]);
    }
}

// sum (b) = gradient (a) / count at the first of count micro-batches, sum + gradient / count at the others.
HBN_KERNEL(accumulate)(const Piece* pieces, const StepState* state, u32 count) {
    Piece piece = pieces[blockIdx.x];
    u64 step = static_cast<u64>(state->step_high) << 32 | state->step_low;
    bool first = step % count == 0;
    float by = static_cast<float>(count);
    for (u32 i = threadIdx.x; i < piece.count; i += blockDim.x) {
        float part = read_gradient(piece, piece.a, i) / by;
        piece.b[i] = first ? part : piece.b[i] + part;
    }
}

// b = decay * b + (1 - decay) * a.
HBN_KERNEL(average)(const Piece* pieces, float decay) {
    Piece piece = pieces[blockIdx.x];
    for (u32 i = threadIdx.x; i < piece.count; i += blockDim.x)
        piece.b[i] = decay * piece.b[i] + (1.0f - decay) * piece.a[i];
}

// b = a, rounded to the element type.
HBN_KERNEL(convert)(const Piece* pieces) {
    Piece piece = pieces[blockIdx.x];
    elem* to = reinterpret_cast<elem*>(piece.b);
    for (u32 i = threadIdx.x; i < piece.count; i += blockDim.x)
        to[i] = narrow(piece.a[i]);
}

// norm[0] = sqrt of the sum of squares of all a, times `unscale` if given; scale[0] = min(1, maximum / norm), times `unscale` (which may be
// scale itself).
HBN_KERNEL(clip)(const Piece* pieces, float* partials, u32* counter, float* scale, float* norm, float maximum, const float* unscale) {
    Piece piece = pieces[blockIdx.x];
    float factor = unscale ? unscale[0] : 1.0f, squares = 0;
    for (u32 i = threadIdx.x; i < piece.count; i += blockDim.x) {
        float g = factor * read_gradient(piece, piece.a, i);
        squares += g * g;
    }
    squares = block_sum(squares);
    if (threadIdx.x == 0)
        partials[blockIdx.x] = squares;
    if (!is_last_block(counter, gridDim.x))
        return;
    squares = 0;
    for (u32 i = threadIdx.x; i < gridDim.x; i += blockDim.x)
        squares += partials[i];
    squares = block_sum(squares);
    if (threadIdx.x == 0) {
        float n = sqrtf(squares);
        norm[0] = n;
        scale[0] = factor * (n <= maximum ? 1.0f : maximum / n); // a NaN stays one
    }
}

// loss_scale: the scale, good steps in a row, 1 where this step's gradients overflowed, steps whose gradients did. gradient_scale[0] = 1 /
// the scale they carry. The scale halves after an overflow, down to 1, and doubles after `growth` good steps (0: never), up to `most`.
HBN_KERNEL(update_loss_scale)
(const Piece* pieces, float* partials, u32* counter, float* loss_scale, float* gradient_scale, float growth, float most) {
    Piece piece = pieces[blockIdx.x];
    float overflow = 0;
    for (u32 i = threadIdx.x; i < piece.count; i += blockDim.x)
        overflow = fabsf(read_gradient(piece, piece.a, i)) <= 3.402823466e38f ? overflow : 1.0f;
    overflow = block_max(overflow);
    if (threadIdx.x == 0)
        partials[blockIdx.x] = overflow;
    if (!is_last_block(counter, gridDim.x))
        return;
    overflow = 0;
    for (u32 i = threadIdx.x; i < gridDim.x; i += blockDim.x)
        overflow = fmaxf(overflow, partials[i]);
    overflow = block_max(overflow);
    if (threadIdx.x == 0) {
        float scale = loss_scale[0], good = overflow != 0 ? 0.0f : loss_scale[1] + 1;
        gradient_scale[0] = 1.0f / scale;
        if (overflow != 0) {
            scale = fmaxf(1.0f, scale / 2);
        } else if (growth > 0 && good >= growth) {
            scale = fminf(most, scale * 2);
            good = 0;
        }
        loss_scale[0] = scale;
        loss_scale[1] = good;
        loss_scale[2] = overflow;
        loss_scale[3] += overflow;
    }
}
