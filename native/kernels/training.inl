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
        const int64_t second = p.second_labels != nullptr ? p.second_labels[n] : label;
        const double second_logit = (double)z[second], first_weight = p.label_weights != nullptr ? (double)p.label_weights[n] : 1.0;
        double sum = 0;
        for (int64_t c = 0; c < p.classes; c++) {
            sum += exp((double)z[c] - (double)largest);
        }
        const double log_sum = (double)largest + log(sum);
        const double smoothed = (double)p.label_smoothing / (double)p.classes, gradient_scale = (double)p.weight / (double)p.rows;
        const double own = 1.0 - (double)p.label_smoothing, own_first = own * first_weight, own_second = own * (1.0 - first_weight);
        double binary = 0;
        T* dz = p.diff_logits != nullptr ? (T*)p.diff_logits + n * p.diff_logits_stride : nullptr;
        for (int64_t c = 0; c < p.classes; c++) {
            const double logit = (double)z[c], probability = exp(logit - log_sum);
            out[c] = (float)probability;
            double target = smoothed + (c == label ? own_first : 0.0) + (c == second ? own_second : 0.0), gradient = probability - target;
            if (p.binary) {
                target = p.target_threshold == 0 ? target : target > (double)p.target_threshold ? 1.0 : 0.0;
                binary += (logit > 0 ? logit : 0.0) - (target == 0 ? 0.0 : logit * target) + log1p(exp(logit > 0 ? -logit : logit));
                gradient = (1.0 / (1.0 + exp(-logit)) - target) / (double)p.classes;
            }
            if (dz != nullptr) {
                dz[c] = (float)(gradient_scale * gradient);
            }
        }
        if (p.labels != nullptr) {
            // -sum t*(z - log_sum), with sum t = 1. A logit of -infinity whose target is 0 adds nothing.
            p.scratch[n] = p.binary ? binary / (double)p.classes
                                    : log_sum - (own_first == 0 ? 0 : own_first * label_logit) -
                                          (own_second == 0 ? 0 : own_second * second_logit) - (smoothed == 0 ? 0 : smoothed * logit_sum);
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
    if (p.rate_outside) {
        for (int64_t i = low; i < high; i++) {
            const float step = scale * g[i] + decay * w[i];
            m[i] = mu * m[i] + step;
            w[i] -= rate * (p.nesterov ? step + mu * m[i] : m[i]);
        }
    } else if (p.nesterov) {
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

// All runs of a list are shared out as if they were one: body(run, low, high) works on a part of one.
template <typename R, typename Body> static void share_out(const R* runs, int64_t run_count, Body body) {
    int64_t total = 0;
    for (int64_t r = 0; r < run_count; r++) {
        total += runs[r].count;
    }
#pragma omp parallel if (total >= kParallelElements)
    {
        const int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
        const int64_t low = total * me / team, high = total * (me + 1) / team;
        int64_t start = 0;
        for (int64_t r = 0; r < run_count && start < high; r++) {
            const int64_t end = start + runs[r].count;
            if (end > low) {
                body(runs[r], low > start ? low - start : 0, minimum(high, end) - start);
            }
            start = end;
        }
    }
}

static void sgd(const Sgd& p) {
    share_out(p.runs, p.run_count, [&](const SgdRun& run, int64_t low, int64_t high) { sgd_range(p, run, low, high); });
}

static void adam_moments(const Adam& p, const AdamRun& run, int64_t low, int64_t high) {
    const float* __restrict g = run.gradient;
    float* __restrict m = run.first;
    float* __restrict v = run.second;
    const float scale = p.gradient_scale, beta1 = p.beta1, rest1 = p.rest1, beta2 = p.beta2, rest2 = p.rest2;
    for (int64_t i = low; i < high; i++) {
        const float gradient = scale * g[i];
        m[i] = beta1 * m[i] + rest1 * gradient;
        v[i] = beta2 * v[i] + rest2 * (gradient * gradient);
    }
}

static void adam_apply(const Adam& p, const AdamRun& run, float rate, int64_t low, int64_t high) {
    float* __restrict w = run.parameter;
    const float* __restrict m = run.first;
    const float* __restrict v = run.second;
    const float correction1 = p.correction1, correction2 = p.correction2, epsilon = p.epsilon, decay = p.weight_decay;
    for (int64_t i = low; i < high; i++) {
        w[i] -= rate * (correction1 * m[i] / (correction2 * __builtin_sqrtf(v[i]) + epsilon) + decay * w[i]);
    }
}

// The squares of a piece of a parameter and of its step, summed in lanes.
static void adam_squares(const Adam& p, const AdamRun& run, int64_t low, int64_t high, double* of_parameter, double* of_step) {
    const float* __restrict w = run.parameter;
    const float* __restrict m = run.first;
    const float* __restrict v = run.second;
    const float correction1 = p.correction1, correction2 = p.correction2, epsilon = p.epsilon, decay = p.weight_decay;
    double ws[kWidth] = {}, us[kWidth] = {};
    for (int64_t i = low; i < high; i += kWidth) {
        for (int64_t l = 0; l < minimum((int64_t)kWidth, high - i); l++) {
            const float u = correction1 * m[i + l] / (correction2 * __builtin_sqrtf(v[i + l]) + epsilon) + decay * w[i + l];
            ws[l] += (double)w[i + l] * (double)w[i + l];
            us[l] += (double)u * (double)u;
        }
    }
    *of_parameter = *of_step = 0;
    for (int l = 0; l < kWidth; l++) {
        *of_parameter += ws[l];
        *of_step += us[l];
    }
}

// Pieces as in sum_of_squares, so that no bit depends on the number of threads.
static void adam_trust(const Adam& p) {
    int64_t pieces = 0;
    for (int64_t r = 0; r < p.run_count; r++) {
        pieces += sum_of_squares_pieces(p.runs[r].count);
    }
#pragma omp parallel if (pieces > 1)
    {
        const int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
        const int64_t low = pieces * me / team, high = pieces * (me + 1) / team;
        int64_t start = 0;
        for (int64_t r = 0; r < p.run_count && start < high; r++) {
            const AdamRun& run = p.runs[r];
            const int64_t end = start + sum_of_squares_pieces(run.count);
            for (int64_t i = low > start ? low : start; i < minimum(high, end); i++) {
                const int64_t from = (i - start) * kSumPiece, to = minimum(run.count, from + kSumPiece);
                adam_moments(p, run, from, to);
                adam_squares(p, run, from, to, p.scratch + 2 * i, p.scratch + 2 * i + 1);
            }
            start = end;
        }
    }
    for (int64_t r = 0, i = 0; r < p.run_count; r++) {
        double of_parameter = 0, of_step = 0;
        for (const int64_t end = i + sum_of_squares_pieces(p.runs[r].count); i < end; i++) {
            of_parameter += p.scratch[2 * i];
            of_step += p.scratch[2 * i + 1];
        }
        p.runs[r].trust = of_parameter > 0 && of_step > 0 ? __builtin_sqrt(of_parameter / of_step) : 1;
    }
}

static void adam(const Adam& p) {
    if (p.trust_ratio) {
        adam_trust(p);
    }
    share_out(p.runs, p.run_count, [&](const AdamRun& run, int64_t low, int64_t high) {
        if (p.trust_ratio) {
            adam_apply(p, run, (float)((double)p.learning_rate * run.trust), low, high);
        } else {
            adam_moments(p, run, low, high);
            adam_apply(p, run, p.learning_rate, low, high);
        }
    });
}

static double square_sum(const float* values, int64_t count) {
    Double<kWidth> s{};
    int64_t i = 0;
    for (; i + kWidth <= count; i += kWidth) {
        const Double<kWidth> v = widen<kWidth>(load<kWidth>(values + i));
        s += v * v;
    }
    double total = 0;
    for (int l = 0; l < kWidth; l++) {
        total += s[l];
    }
    for (; i < count; i++) {
        total += (double)values[i] * (double)values[i];
    }
    return total;
}

// The sums of pieces are added in order whatever the number of threads.
static double sum_of_squares(const Run* runs, int64_t run_count, double* scratch) {
    int64_t pieces = 0;
    for (int64_t r = 0; r < run_count; r++) {
        pieces += sum_of_squares_pieces(runs[r].count);
    }
#pragma omp parallel if (pieces > 1)
    {
        const int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
        const int64_t low = pieces * me / team, high = pieces * (me + 1) / team;
        int64_t start = 0;
        for (int64_t r = 0; r < run_count && start < high; r++) {
            const int64_t end = start + sum_of_squares_pieces(runs[r].count);
            for (int64_t i = low > start ? low : start; i < minimum(high, end); i++) {
                const int64_t from = (i - start) * kSumPiece;
                scratch[i] = square_sum(runs[r].from + from, minimum(kSumPiece, runs[r].count - from));
            }
            start = end;
        }
    }
    double total = 0;
    for (int64_t r = 0, i = 0; r < run_count; r++) {
        double of_run = 0;
        for (const int64_t end = i + sum_of_squares_pieces(runs[r].count); i < end; i++) {
            of_run += scratch[i];
        }
        total += of_run;
    }
    return total;
}

static void accumulate(const Run* runs, int64_t run_count, float factor, bool first) {
    share_out(runs, run_count, [=](const Run& run, int64_t low, int64_t high) {
        float* __restrict sum = run.to;
        const float* __restrict gradient = run.from;
        if (first) {
            for (int64_t i = low; i < high; i++) {
                sum[i] = factor * gradient[i];
            }
        } else {
            for (int64_t i = low; i < high; i++) {
                sum[i] += factor * gradient[i];
            }
        }
    });
}

static void average(const Run* runs, int64_t run_count, float decay) {
    const float rest = 1.0f - decay;
    share_out(runs, run_count, [=](const Run& run, int64_t low, int64_t high) {
        float* __restrict average = run.to;
        const float* __restrict source = run.from;
        for (int64_t i = low; i < high; i++) {
            average[i] = decay * average[i] + rest * source[i];
        }
    });
}

static void clear(void* memory, int64_t bytes) {
    constexpr int64_t piece = 2 << 20; // a huge page
    const int64_t pieces = ceil_div(bytes, piece);
#pragma omp parallel for schedule(static, 1) if (pieces > 1)
    for (int64_t i = 0; i < pieces; i++) {
        memset((char*)memory + i * piece, 0, (size_t)minimum(piece, bytes - i * piece));
    }
}
