// Softmax, cross-entropy and the optimizer's arithmetic.

template <typename T> static void loss_of(const Loss& p) {
#pragma omp parallel for schedule(static) if (p.rows * p.classes >= kParallelElements / 8)
    for (int64_t n = 0; n < p.rows; n++) {
        const float* z = p.logits + n * p.logits_stride;
        float* out = p.probabilities + n * p.probabilities_stride;
        float largest = z[0];
        double logit_sum = 0;
        for (int64_t c = 0; c < p.classes; c++) {
            largest = z[c] > largest ? z[c] : largest;
            logit_sum += (double)z[c];
        }
        // The cross-entropy wants the logits, which the probabilities may overwrite.
        const int64_t label = p.labels != nullptr ? p.labels[n] : 0;
        const double label_logit = (double)z[label];
        double sum = 0;
        for (int64_t c = 0; c < p.classes; c++) {
            sum += exp((double)z[c] - (double)largest);
        }
        const double log_sum = (double)largest + log(sum);
        const double smoothed = (double)p.label_smoothing / (double)p.classes, gradient_scale = (double)p.weight / (double)p.rows;
        T* dz = p.diff_logits != nullptr ? (T*)p.diff_logits + n * p.diff_logits_stride : nullptr;
        for (int64_t c = 0; c < p.classes; c++) {
            const double probability = exp((double)z[c] - log_sum);
            out[c] = (float)probability;
            if (dz != nullptr) {
                const double target = smoothed + (c == label ? 1.0 - (double)p.label_smoothing : 0.0);
                dz[c] = (float)(gradient_scale * (probability - target));
            }
        }
        if (p.labels != nullptr) {
            // -sum t*(z - log_sum), with sum t = 1. A logit of -infinity whose target is 0 adds nothing.
            const double own = 1.0 - (double)p.label_smoothing;
            p.scratch[n] = log_sum - (own == 0 ? 0 : own * label_logit) - (smoothed == 0 ? 0 : smoothed * logit_sum);
        }
    }
    if (p.labels != nullptr) {
        double total = 0;
        for (int64_t n = 0; n < p.rows; n++) {
            total += p.scratch[n];
        }
        *p.loss = (float)((double)p.weight * total / (double)p.rows);
    }
}

static void loss(const Loss& p) {
    p.diff_logits_element == Element::BFloat16 ? loss_of<Bf16>(p) : loss_of<float>(p);
}

static void sgd_range(const Sgd& p, const SgdRun& run, int64_t low, int64_t high) {
    float* __restrict w = run.parameter;
    const float* __restrict g = run.gradient;
    float* __restrict m = run.momentum;
    const float scale = p.gradient_scale, mu = p.mu, decay = p.weight_decay, rate = p.learning_rate;
    if (p.nesterov) {
        for (int64_t i = low; i < high; i++) {
            const float step = rate * (scale * g[i] + decay * w[i]);
            m[i] = mu * m[i] - step;
            w[i] += mu * m[i] - step;
        }
    } else {
        for (int64_t i = low; i < high; i++) {
            m[i] = mu * m[i] - rate * (scale * g[i] + decay * w[i]);
            w[i] += m[i];
        }
    }
}

// All runs of a group are shared out as if they were one.
static void sgd(const Sgd& p) {
    int64_t total = 0;
    for (int64_t r = 0; r < p.run_count; r++) {
        total += p.runs[r].count;
    }
#pragma omp parallel if (total >= kParallelElements)
    {
        const int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
        const int64_t low = total * me / team, high = total * (me + 1) / team;
        int64_t start = 0;
        for (int64_t r = 0; r < p.run_count && start < high; r++) {
            const int64_t end = start + p.runs[r].count;
            if (end > low) {
                sgd_range(p, p.runs[r], low > start ? low - start : 0, minimum(high, end) - start);
            }
            start = end;
        }
    }
}

static double sum_of_squares(const float* values, int64_t count) {
    constexpr int64_t piece = 16384;
    const int64_t pieces = ceil_div(count, piece);
    double total = 0;
    // Pieces are added in order whatever the number of threads: `ordered` would serialise, so each round of pieces has its own sums.
    constexpr int64_t kRound = 64;
    for (int64_t first = 0; first < pieces; first += kRound) {
        double sums[kRound];
        const int64_t round = minimum(kRound, pieces - first);
#pragma omp parallel for schedule(static) if (round > 1)
        for (int64_t i = 0; i < round; i++) {
            const int64_t low = (first + i) * piece, high = minimum(low + piece, count);
            Double<kWidth> s{};
            int64_t j = low;
            for (; j + kWidth <= high; j += kWidth) {
                const Double<kWidth> v = widen<kWidth>(load<kWidth>(values + j));
                s += v * v;
            }
            double t = 0;
            for (int l = 0; l < kWidth; l++) {
                t += s[l];
            }
            for (; j < high; j++) {
                t += (double)values[j] * (double)values[j];
            }
            sums[i] = t;
        }
        for (int64_t i = 0; i < round; i++) {
            total += sums[i];
        }
    }
    return total;
}

static void accumulate(float* __restrict sum, const float* __restrict gradient, int64_t count, float factor, bool first) {
    if (first) {
#pragma omp parallel for simd schedule(static) if (count >= kParallelElements)
        for (int64_t i = 0; i < count; i++) {
            sum[i] = factor * gradient[i];
        }
        return;
    }
#pragma omp parallel for simd schedule(static) if (count >= kParallelElements)
    for (int64_t i = 0; i < count; i++) {
        sum[i] += factor * gradient[i];
    }
}

static void average(float* average, const float* source, int64_t count, float decay) {
    const float rest = 1.0f - decay;
#pragma omp parallel for simd schedule(static) if (count >= kParallelElements)
    for (int64_t i = 0; i < count; i++) {
        average[i] = decay * average[i] + rest * source[i];
    }
}
