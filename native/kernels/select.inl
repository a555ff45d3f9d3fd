// ReLU and hardswish, by comparisons that a NaN fails, so that it stays one.

template <Selection F, typename V> HBN_INLINE V selected(V x, V g) {
    if (F == Selection::Relu) {
        return x < 0.0f ? V{} : x;
    }
    if (F == Selection::ReluGradient) {
        return x <= 0.0f ? V{} : g;
    }
    if (F == Selection::HardSwish) {
        V inner = x + 3.0f;
        inner = inner < 0.0f ? V{} : inner;
        inner = inner > 6.0f ? V{} + 6.0f : inner;
        return x * (inner / 6.0f);
    }
    const V inside = g * ((x + x + 3.0f) / 6.0f), right = x >= 3.0f ? g : inside;
    return x <= -3.0f ? V{} : right;
}

template <Selection F, typename T> static void select_run(const T* x, const T* g, T* y, int64_t length) {
    constexpr int W = kWidth;
    int64_t i = 0;
    for (; i + W <= length; i += W) {
        store<W>(y + i, selected<F, Float<W>>(load<W>(x + i), load<W>(g + i)));
    }
    for (; i < length; i++) {
        y[i] = selected<F, float>((float)x[i], (float)g[i]);
    }
}

template <Selection F, typename T> static void select_of(const Select& p) {
    const Extent& e = p.extent;
    const View& g = p.diff_dst.data != nullptr ? p.diff_dst : p.src;
    const bool parallel = e.images * e.channels * e.area >= kParallelElements;
    if (is_run(e, p.src) && is_run(e, g) && is_run(e, p.dst)) {
        const int64_t length = run_length(e, p.dst), piece = 4096, pieces = ceil_div(length, piece);
#pragma omp parallel for collapse(2) schedule(static) if (parallel)
        for (int64_t n = 0; n < e.images; n++) {
            for (int64_t i = 0; i < pieces; i++) {
                const int64_t at = i * piece;
                select_run<F>(image<T>(p.src, n) + at, image<T>(g, n) + at, image<T>(p.dst, n) + at, minimum(piece, length - at));
            }
        }
        return;
    }
#pragma omp parallel for collapse(2) schedule(static) if (parallel)
    for (int64_t n = 0; n < e.images; n++) {
        for (int64_t c = 0; c < e.channels; c++) {
            const T *from = channel_at<T>(p.src, e.area, n, c), *diff = channel_at<T>(g, e.area, n, c);
            T* to = channel_at<T>(p.dst, e.area, n, c);
            for (int64_t i = 0; i < e.area; i++) {
                to[i * p.dst.block] = selected<F, float>((float)from[i * p.src.block], (float)diff[i * g.block]);
            }
        }
    }
}

template <Selection F> static void select_element(const Select& p) {
    p.dst.element == Element::BFloat16 ? select_of<F, Bf16>(p) : select_of<F, float>(p);
}

static void select(const Select& p) {
    switch (p.function) {
    case Selection::Relu:
        select_element<Selection::Relu>(p);
        break;
    case Selection::ReluGradient:
        select_element<Selection::ReluGradient>(p);
        break;
    case Selection::HardSwish:
        select_element<Selection::HardSwish>(p);
        break;
    case Selection::HardSwishGradient:
        select_element<Selection::HardSwishGradient>(p);
        break;
    }
}
