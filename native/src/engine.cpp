#include "engine.hpp"
#include "processors.hpp"

#include <algorithm>
#include <mutex>
#include <omp.h>
#include <system_error>
#include <thread>
#include <vector>

namespace hbn {

namespace {

// How many threads OpenMP gives a parallel region of the calling thread now.
int32_t team_size() {
    int32_t size = 1;
#pragma omp parallel
    {
#pragma omp single
        size = omp_get_num_threads();
    }
    return size;
}

// OpenMP's runtime ends the process when the system refuses it a thread; asked first, the refusal is an error like any other.
void require_threads(int32_t count) {
    std::mutex gate;
    std::vector<std::thread> threads;
    threads.reserve(static_cast<size_t>(count));
    bool refused = false;
    {
        const std::lock_guard<std::mutex> closed(gate); // they wait here, so that all live at once
        try {
            for (int32_t i = 1; i < count; i++) {
                threads.emplace_back([&gate] { const std::lock_guard<std::mutex> wait(gate); });
            }
        } catch (const std::system_error&) {
            refused = true;
        }
    }
    for (std::thread& t : threads) {
        t.join();
    }
    if (refused) {
        unsupported(
            "the system starts only " + std::to_string(threads.size() + 1) + " of " + std::to_string(count) +
            " threads (limits of processes per user, of processes per control group, or of memory); use fewer threads or raise the limit");
    }
}

// What a thread has set and proved; OpenMP's settings belong to the calling thread.
thread_local int32_t proved_team = 0;

#if defined(__x86_64__)
// Whether oneDNN may use an instruction set; its numbers for them mean something else on other architectures.
bool may_use(dnnl::cpu_isa wanted) {
    const int have = static_cast<int>(dnnl::get_effective_cpu_isa()), want = static_cast<int>(wanted);
    return (have & want) == want;
}
#endif

// One instruction set for oneDNN and for us, so that ONEDNN_MAX_CPU_ISA limits both.
int32_t effective_isa() {
#ifdef HBN_HAS_avx512
    if (may_use(dnnl::cpu_isa::avx512_core) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        return HBN_ISA_AVX512;
    }
#endif
#ifdef HBN_HAS_avx2
    if (may_use(dnnl::cpu_isa::avx2) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return HBN_ISA_AVX2;
    }
#endif
    return HBN_ISA_BASELINE;
}

// What oneDNN's convolutions do with bfloat16 under the instruction set it may use. On other architectures nothing was tried.
int32_t bf16_support() {
#if defined(__x86_64__)
    using dnnl::cpu_isa;
    return may_use(cpu_isa::avx512_core_bf16) ? HBN_BF16_NATIVE : may_use(cpu_isa::avx512_core) ? HBN_BF16_EMULATED : HBN_BF16_STORAGE;
#else
    return HBN_BF16_STORAGE;
#endif
}

const Arithmetic* arithmetic_for(int32_t isa) {
#ifdef HBN_HAS_avx512
    if (isa == HBN_ISA_AVX512) {
        return &arithmetic_avx512;
    }
#endif
#ifdef HBN_HAS_avx2
    if (isa == HBN_ISA_AVX2) {
        return &arithmetic_avx2;
    }
#endif
    (void)isa;
    return &arithmetic_baseline;
}

// What oneDNN itself chooses for a convolution's output, when that is a block of 8 or 16 channels.
int32_t preferred_block(const dnnl::engine& engine, int32_t isa) {
    using dnnl::memory;
    const int32_t fallback = isa == HBN_ISA_AVX512 ? 16 : 8;
    try {
        const memory::dims activations{2, 64, 14, 14}, weights{64, 64, 3, 3}, ones{1, 1}, zeros{0, 0};
        const auto any = [](const memory::dims& d) { return memory::desc(d, memory::data_type::f32, memory::format_tag::any); };
        const auto pd = compat::forward_pd<dnnl::convolution_forward>(engine, dnnl::primitive_attr(), dnnl::prop_kind::forward_training,
                                                                      dnnl::algorithm::convolution_direct, any(activations), any(weights),
                                                                      any(activations), ones, zeros, ones, ones);
        const compat::Blocking blocking = compat::blocking_of(pd.dst_desc());
        if (blocking.known && blocking.inner_blocks.size() == 1 && (blocking.inner_blocks[0] == 8 || blocking.inner_blocks[0] == 16)) {
            return static_cast<int32_t>(blocking.inner_blocks[0]);
        }
    } catch (const dnnl::error&) {
        // The probe only states a preference.
    }
    return fallback;
}

} // namespace

Engine::Engine(int32_t requested_threads, int32_t most_threads)
    : dnnl(dnnl::engine::kind::cpu, 0), stream(dnnl), wanted_threads(requested_threads), threads(1), isa(effective_isa()), channel_block(0),
      widens_bf16(bf16_support() == HBN_BF16_STORAGE), arithmetic(arithmetic_for(isa)) {
    if (wanted_threads == 0) {
        wanted_threads = physical_cores();
        wanted_threads = most_threads > 0 ? std::min(wanted_threads, most_threads) : wanted_threads;
    }
    require_threads(wanted_threads);
    // OMP_THREAD_LIMIT and the like give a smaller team than was asked for. oneDNN plans for what it is told: what it then waits for must
    // come.
    omp_set_dynamic(0);
    omp_set_num_threads(wanted_threads);
    threads = team_size();
    use_threads();
    channel_block = preferred_block(dnnl, isa);
}

void Engine::use_threads() const {
    if (omp_get_dynamic() != 0) {
        omp_set_dynamic(0); // else the runtime may give a smaller team whenever it likes
    }
    if (omp_get_max_threads() != threads) {
        omp_set_num_threads(threads);
    }
    if (omp_in_parallel() != 0) {
        throw Error(HBN_RUNTIME,
                    "called from within a parallel region of OpenMP, where no team of " + std::to_string(threads) + " threads is given");
    }
    if (proved_team != threads) {
        const int32_t given = team_size();
        if (given != threads) {
            throw Error(HBN_RUNTIME, "OpenMP gives this thread a team of " + std::to_string(given) +
                                         " threads, but kernels were planned for " + std::to_string(threads) +
                                         " (OMP_THREAD_LIMIT, OMP_MAX_ACTIVE_LEVELS)");
        }
        proved_team = threads;
    }
}

} // namespace hbn

using namespace hbn;

hbn_status hbn_library_version(int32_t* major, int32_t* minor, int32_t* patch) noexcept {
    return guard([&] {
        const dnnl_version_t* version = dnnl_version();
        checked_handle(major, "major") = version->major;
        checked_handle(minor, "minor") = version->minor;
        checked_handle(patch, "patch") = version->patch;
    });
}

hbn_status hbn_struct_size(int32_t which, int32_t* bytes) noexcept {
    return guard([&] {
        static const size_t sizes[HBN_STRUCT_COUNT] = {
            sizeof(hbn_engine_desc),        sizeof(hbn_engine_info),     sizeof(hbn_tensor),    sizeof(hbn_conv_desc),
            sizeof(hbn_inner_product_desc), sizeof(hbn_batch_norm_desc), sizeof(hbn_pool_desc), sizeof(hbn_lrn_desc),
            sizeof(hbn_activation_desc),    sizeof(hbn_dropout_desc),    sizeof(hbn_loss_desc), sizeof(hbn_optimizer_desc)};
        require(which >= 0 && which < HBN_STRUCT_COUNT, "which is not a HBN_STRUCT_ value");
        checked_handle(bytes, "bytes") = static_cast<int32_t>(sizes[which]);
    });
}

hbn_status hbn_engine_create(const hbn_engine_desc* desc, hbn_engine** engine) noexcept {
    return guard([&] {
        checked_handle(engine, "engine") = nullptr;
        const hbn_engine_desc& d = checked(desc, "engine desc");
        require(d.threads >= 0 && d.threads <= 4096, "threads must be 0 (one per core) to 4096");
        require(d.most_threads >= 0, "most_threads must be 0 (no limit) or more");
        auto created = std::make_unique<hbn_engine>();
        created->shared = std::make_shared<Engine>(d.threads, d.most_threads);
        *engine = created.release();
    });
}

hbn_status hbn_engine_query(const hbn_engine* engine, hbn_engine_info* info) noexcept {
    return guard([&] {
        checked(info, "engine info");
        const Engine& e = *checked_handle(engine, "engine").shared;
        info->threads = e.threads;
        info->isa = e.isa;
        info->channel_block = e.channel_block;
        info->bf16 = bf16_support();
        info->wanted_threads = e.wanted_threads;
    });
}

void hbn_engine_destroy(hbn_engine* engine) noexcept {
    delete engine;
}

hbn_status hbn_memory_clear(hbn_engine* engine, void* memory, int64_t bytes) noexcept {
    return guard([&] {
        const Engine& e = *checked_handle(engine, "engine").shared;
        require(memory != nullptr && bytes >= 0, "memory must not be null and bytes not negative");
        e.use_threads();
        e.arithmetic->clear(memory, bytes);
    });
}
