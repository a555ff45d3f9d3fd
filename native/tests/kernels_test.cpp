// Every kernel of every instruction set that this processor has, on memory that ends where its data ends, against sums in double precision:
// a read or write beyond is found by AddressSanitizer (sanitize.sh), a wrong element by the comparison. Odd extents: whole vectors, and
// what is left of them.
#include "kernels.hpp"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

using namespace hbn;

namespace {

int failures = 0;
std::string where;

void check(double actual, double expected, double bound, const char* what, int64_t i) {
    if (!(std::fabs(actual - expected) <= bound) && failures++ < 20) {
        std::fprintf(stderr, "%s: %s[%lld] is %.9g, expected %.9g within %.3g\n", where.c_str(), what, static_cast<long long>(i), actual,
                     expected, bound);
    }
}

// Numbers between -1 and 1, the same each time.
struct Numbers {
    uint32_t state;
    explicit Numbers(uint32_t seed) : state(seed * 2654435761u + 1) {}
    float next() {
        state = state * 1664525u + 1013904223u;
        return static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
    }
    std::vector<float> many(int64_t count) {
        std::vector<float> values(static_cast<size_t>(count));
        for (float& v : values) {
            v = next();
        }
        return values;
    }
};

// An activation tensor: its memory ends with its last block, and padded channels hold zeros.
struct Activation {
    Extent extent;
    int32_t block;
    std::vector<float> memory;

    Activation(Extent e, int32_t b) : extent(e), block(b), memory(static_cast<size_t>(e.images * stride())) {}
    int64_t padded() const { return (extent.channels + block - 1) / block * block; }
    int64_t stride() const { return padded() * extent.area; }
    size_t at(int64_t n, int64_t c, int64_t i) const {
        return static_cast<size_t>(n * stride() + c / block * block * extent.area + i * block + c % block);
    }
    float& operator()(int64_t n, int64_t c, int64_t i) { return memory[at(n, c, i)]; }
    float operator()(int64_t n, int64_t c, int64_t i) const { return memory[at(n, c, i)]; }
    View view() { return {memory.data(), stride(), block, 0, true, Element::Float32}; }
    Activation& fill(Numbers& numbers) {
        each([&](int64_t n, int64_t c, int64_t i) { (*this)(n, c, i) = numbers.next(); });
        return *this;
    }
    template <typename F> void each(F f) const {
        for (int64_t n = 0; n < extent.images; n++) {
            for (int64_t c = 0; c < extent.channels; c++) {
                for (int64_t i = 0; i < extent.area; i++) {
                    f(n, c, i);
                }
            }
        }
    }
    void padding_is_zero(const char* what) const {
        for (int64_t n = 0; n < extent.images; n++) {
            for (int64_t c = extent.channels; c < padded(); c++) {
                for (int64_t i = 0; i < extent.area; i++) {
                    check((*this)(n, c, i), 0, 0, what, c);
                }
            }
        }
    }
};

const int64_t kCounts[] = {1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 1000, 16384 + 5};

void updates(const Arithmetic& k) {
    for (int64_t count : kCounts) {
        for (int form = 0; form < 4; form++) {
            Numbers numbers(static_cast<uint32_t>(count) + 7);
            std::vector<float> w = numbers.many(count), g = numbers.many(count), m = numbers.many(count), w0 = w, m0 = m;
            const SgdRun run{w.data(), g.data(), m.data(), count};
            const bool nesterov = form % 2 != 0, outside = form >= 2;
            k.sgd({&run, 1, 0.5f, 0.9f, 0.01f, 0.25f, nesterov, outside});
            for (int64_t i = 0; i < count; i++) {
                const size_t at = static_cast<size_t>(i);
                const double gradient = 0.5 * g[at] + static_cast<double>(0.01f) * w0[at], mu = 0.9f;
                const double v = mu * m0[at] + (outside ? gradient : -0.25 * gradient);
                const double step = outside ? -0.25 * (nesterov ? gradient + mu * v : v) : nesterov ? mu * v - 0.25 * gradient : v;
                check(m[at], v, 1e-6, "momentum", i);
                check(w[at], w0[at] + step, 1e-6, "parameter", i);
            }
        }
        for (int form = 0; form < 2; form++) {
            Numbers numbers(static_cast<uint32_t>(count) + 9);
            std::vector<float> w = numbers.many(count), g = numbers.many(count), m = numbers.many(count), v = numbers.many(count);
            for (float& x : v) {
                x *= x;
            }
            const std::vector<float> w0 = w, m0 = m, v0 = v;
            std::vector<double> u(static_cast<size_t>(count)), pieces(2 * static_cast<size_t>(sum_of_squares_pieces(count)));
            AdamRun run{w.data(), g.data(), m.data(), v.data(), count, 0};
            k.adam({&run, 1, 0.5f, 0.75f, 0.25f, 0.875f, 0.125f, 2.0f, 1.5f, 0.01f, 0.125f, 0.25f, form == 1, pieces.data()});
            double ofParameter = 0, ofStep = 0;
            for (size_t i = 0; i < u.size(); i++) {
                const double gradient = 0.5 * g[i], first = 0.75 * m0[i] + 0.25 * gradient;
                const double second = 0.875 * v0[i] + 0.125 * gradient * gradient;
                check(m[i], first, 1e-6, "first moment", static_cast<int64_t>(i));
                check(v[i], second, 1e-6, "second moment", static_cast<int64_t>(i));
                u[i] = 2 * first / (1.5 * std::sqrt(second) + static_cast<double>(0.01f)) + 0.125 * w0[i];
                ofParameter += static_cast<double>(w0[i]) * w0[i];
                ofStep += u[i] * u[i];
            }
            const double trust = form == 1 ? std::sqrt(ofParameter / ofStep) : 1;
            for (size_t i = 0; i < u.size(); i++) {
                check(w[i], w0[i] - 0.25 * trust * u[i], 4e-6, form == 1 ? "lamb parameter" : "adam parameter", static_cast<int64_t>(i));
            }
        }
        Numbers numbers(3);
        std::vector<float> values(static_cast<size_t>(count), 1.0f);
        values.back() = 1000; // the last one weighs as much as all others
        double squares = 0;
        for (float v : values) {
            squares += static_cast<double>(v) * v;
        }
        std::vector<double> pieces(static_cast<size_t>(sum_of_squares_pieces(count)));
        const Run read{nullptr, values.data(), count};
        check(k.sum_of_squares(&read, 1, pieces.data()), squares, 1e-12 * squares, "sum of squares", count);

        std::vector<float> sum = numbers.many(count), gradient = numbers.many(count), before = sum;
        const Run added{sum.data(), gradient.data(), count}, averaged{before.data(), gradient.data(), count};
        k.accumulate(&added, 1, 0.25f, true);
        for (size_t i = 0; i < sum.size(); i++) {
            check(sum[i], 0.25 * gradient[i], 1e-7, "first sum", static_cast<int64_t>(i));
        }
        k.accumulate(&added, 1, 0.25f, false);
        k.average(&averaged, 1, 0.75f);
        Numbers again(3);
        const std::vector<float> start = again.many(count);
        for (size_t i = 0; i < sum.size(); i++) {
            check(sum[i], 0.5 * gradient[i], 1e-7, "second sum", static_cast<int64_t>(i));
            check(before[i], 0.75 * start[i] + 0.25 * gradient[i], 2e-7, "average", static_cast<int64_t>(i));
        }
    }
}

void layouts(const Arithmetic& k, Extent e) {
    const int32_t blocks[] = {1, 8, 16};
    Numbers numbers(11);
    for (int32_t from : blocks) {
        for (int32_t to : blocks) {
            Activation src(e, from), dst(e, to);
            src.fill(numbers);
            std::fill(dst.memory.begin(), dst.memory.end(), 7.0f);
            k.copy(e, src.view(), dst.view());
            dst.each([&](int64_t n, int64_t c, int64_t i) { check(dst(n, c, i), src(n, c, i), 0, "copy", c); });
            dst.padding_is_zero("padding of a copy");

            // Through bfloat16 and back: a relative error of half a unit in its last place.
            std::vector<uint16_t> narrow(dst.memory.size());
            const View half{narrow.data(), dst.stride(), to, 0, true, Element::BFloat16};
            k.copy(e, src.view(), half);
            k.copy(e, half, dst.view());
            dst.each(
                [&](int64_t n, int64_t c, int64_t i) { check(dst(n, c, i), src(n, c, i), std::fabs(src(n, c, i)) / 256, "bfloat16", c); });
        }
    }
    for (int32_t block : blocks) {
        for (int64_t count : {2, 3, 4, 6}) {
            std::vector<Activation> srcs(static_cast<size_t>(count), Activation(e, block));
            std::vector<View> views;
            for (Activation& s : srcs) {
                views.push_back(s.fill(numbers).view());
            }
            Activation dst(e, block);
            k.sum(e, views.data(), count, dst.view());
            dst.each([&](int64_t n, int64_t c, int64_t i) {
                double total = 0;
                for (const Activation& s : srcs) {
                    total += s(n, c, i);
                }
                check(dst(n, c, i), total, 1e-6, "sum", c);
            });
        }
        Activation src(e, block), dst(e, block);
        src.fill(numbers);
        k.dropout({e, src.view(), dst.view(), 5, 9, 1u << 31, 2.0f, (1LL << 33) + 1});
        int64_t kept = 0;
        dst.each([&](int64_t n, int64_t c, int64_t i) {
            kept += dst(n, c, i) != 0;
            check(dst(n, c, i), dst(n, c, i) == 0 ? 0 : 2 * src(n, c, i), 0, "dropout", c);
        });
        const double all = static_cast<double>(e.images * e.channels * e.area);
        check(static_cast<double>(kept), all / 2, 4 * std::sqrt(all), "kept by dropout", 0);

        std::vector<uint8_t> pixels(static_cast<size_t>(all));
        for (uint8_t& p : pixels) {
            p = static_cast<uint8_t>((numbers.next() + 1) * 127);
        }
        const std::vector<float> mean = numbers.many(e.channels), scale = numbers.many(e.channels);
        k.input({e, pixels.data(), dst.view(), mean.data(), scale.data()});
        dst.each([&](int64_t n, int64_t c, int64_t i) {
            const size_t at = static_cast<size_t>((n * e.area + i) * e.channels + c), channel = static_cast<size_t>(c);
            check(dst(n, c, i), (pixels[at] - static_cast<double>(mean[channel])) * scale[channel], 2e-5, "input", c);
        });
        dst.padding_is_zero("padding of an input");
    }
}

void losses(const Arithmetic& k, int64_t rows, int64_t classes) {
    Numbers numbers(13);
    std::vector<float> logits = numbers.many(rows * classes), probabilities(logits.size()), diff(logits.size());
    std::vector<int32_t> labels(static_cast<size_t>(rows), static_cast<int32_t>(classes - 1));
    std::vector<double> scratch(static_cast<size_t>(rows));
    float loss = 0;
    k.loss({rows, classes, logits.data(), classes, labels.data(), probabilities.data(), classes, &loss, diff.data(), classes,
            Element::Float32, 0.1f, 0.5f, scratch.data(), nullptr, nullptr, false, 0});
    double total = 0;
    for (int64_t n = 0; n < rows; n++) {
        double sum = 0;
        for (int64_t c = 0; c < classes; c++) {
            sum += std::exp(static_cast<double>(logits[static_cast<size_t>(n * classes + c)]));
        }
        for (int64_t c = 0; c < classes; c++) {
            const size_t at = static_cast<size_t>(n * classes + c);
            const double p = std::exp(static_cast<double>(logits[at])) / sum, smoothing = 0.1f;
            const double t = smoothing / static_cast<double>(classes) + (c == classes - 1 ? 1 - smoothing : 0);
            total -= t * std::log(p);
            check(probabilities[at], p, 1e-6, "probability", c);
            check(diff[at], 0.5 * (p - t) / static_cast<double>(rows), 1e-6, "gradient of a logit", c);
        }
    }
    check(loss, 0.5 * total / static_cast<double>(rows), 1e-5, "loss", 0);
}

void batch_norms(const Arithmetic& k, Extent e, int32_t block, bool relu, bool with_residual) {
    Numbers numbers(17);
    Activation x(e, block), r(e, block), y(e, block), dy(e, block), dx(e, block), dr(e, block);
    x.fill(numbers), r.fill(numbers), dy.fill(numbers);
    const int64_t padded = x.padded(), channels = e.channels;
    std::vector<float> scale = numbers.many(padded), shift = numbers.many(padded), running_mean = numbers.many(padded);
    std::vector<float> running_variance(static_cast<size_t>(padded), 2.0f), mean(scale.size()), variance(scale.size()),
        diff_scale(scale.size()), diff_shift(scale.size());
    for (size_t c = static_cast<size_t>(channels); c < scale.size(); c++) {
        scale[c] = shift[c] = running_mean[c] = running_variance[c] = 0;
    }
    const std::vector<float> old_mean = running_mean, old_variance = running_variance;
    std::vector<double> scratch(static_cast<size_t>(batch_norm_scratch(e, padded)));
    const float epsilon = 0.125f;
    const View none{nullptr, 0, block, 0, true, Element::Float32};
    auto values = [&](std::vector<float>& v) { return Values{v.data(), padded}; };
    k.batch_norm_forward({e, x.view(), y.view(), with_residual ? r.view() : none, values(scale), values(shift), values(mean),
                          values(variance), values(running_mean), values(running_variance), false, relu, true, epsilon, 0.25f,
                          scratch.data()});
    k.batch_norm_backward({e, x.view(), y.view(), dy.view(), dx.view(), with_residual ? dr.view() : none, none, values(scale),
                           values(shift), values(mean), values(variance), values(diff_scale), values(diff_shift), false, relu, true,
                           epsilon, scratch.data()});
    const double m = static_cast<double>(e.images * e.area);
    for (int64_t c = 0; c < channels; c++) {
        const size_t at = static_cast<size_t>(c);
        double sum = 0, squares = 0, g = 0, dot = 0;
        auto over = [&](auto f) {
            for (int64_t n = 0; n < e.images; n++) {
                for (int64_t i = 0; i < e.area; i++) {
                    f(n, i);
                }
            }
        };
        over([&](int64_t n, int64_t i) { sum += x(n, c, i); });
        const double mu = sum / m;
        over([&](int64_t n, int64_t i) { squares += (x(n, c, i) - mu) * (x(n, c, i) - mu); });
        const double var = squares / m, inverse = 1 / std::sqrt(var + epsilon);
        check(mean[at], mu, 1e-6, "mean", c);
        check(variance[at], var, 1e-6, "variance", c);
        check(running_mean[at], 0.75 * old_mean[at] + 0.25 * mu, 1e-6, "running mean", c);
        check(running_variance[at], 0.75 * old_variance[at] + 0.25 * squares / (m - 1), 2e-6, "running variance", c);
        auto gradient = [&](int64_t n, int64_t i) { return relu && !(y(n, c, i) > 0) ? 0.0 : static_cast<double>(dy(n, c, i)); };
        over([&](int64_t n, int64_t i) {
            const double hat = (x(n, c, i) - mu) * inverse, value = scale[at] * hat + shift[at] + (with_residual ? r(n, c, i) : 0);
            check(y(n, c, i), relu && value < 0 ? 0 : value, 5e-6, "dst", c);
            g += gradient(n, i);
            dot += gradient(n, i) * hat;
        });
        check(diff_shift[at], g, 1e-5 * m, "gradient of shift", c);
        check(diff_scale[at], dot, 1e-5 * m, "gradient of scale", c);
        over([&](int64_t n, int64_t i) {
            const double hat = (x(n, c, i) - mu) * inverse;
            check(dx(n, c, i), scale[at] * inverse / m * (m * gradient(n, i) - g - hat * dot), 2e-5, "gradient of src", c);
            if (with_residual) {
                check(dr(n, c, i), gradient(n, i), 0, "gradient of residual", c);
            }
        });
    }
    y.padding_is_zero("padding of a normalization");
    dx.padding_is_zero("padding of its gradient");
}

void all(const char* name, const Arithmetic& k) {
    where = name;
    updates(k);
    for (const Extent& e : {Extent{1, 3, 25}, Extent{2, 17, 21}, Extent{3, 16, 1}, Extent{2, 8, 300}}) {
        where = std::string(name) + ", " + std::to_string(e.images) + "x" + std::to_string(e.channels) + "x" + std::to_string(e.area);
        layouts(k, e);
        losses(k, e.images + 1, e.channels);
        for (int32_t block : {1, 8, 16}) {
            for (int form = 0; form < 4; form++) {
                if (e.images * e.area > 1) {
                    batch_norms(k, e, block, form % 2 != 0, form >= 2);
                }
            }
        }
    }
}

} // namespace

int main() {
    all("baseline", arithmetic_baseline);
    int sets = 1;
#if defined(HBN_HAS_avx2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        all("avx2", arithmetic_avx2);
        sets++;
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
        all("avx512", arithmetic_avx512);
        sets++;
    }
#endif
    std::printf("%d instruction sets, %d failures\n", sets, failures);
    return failures != 0;
}
