#ifndef HBN_ENGINE_HPP
#define HBN_ENGINE_HPP

#include "../kernels/kernels.hpp"
#include "dnnl_compat.hpp"
#include "guard.hpp"

#include <memory>

namespace hbn {

// What kernels share: oneDNN's engine and stream, our arithmetic for this processor, the number of threads and the channel block.
struct Engine {
    dnnl::engine dnnl;
    dnnl::stream stream;
    int32_t wanted_threads; // before the runtime's own limits
    int32_t threads;        // the team that every parallel region gets
    int32_t isa;
    int32_t channel_block;
    bool widens_bf16; // oneDNN has no bfloat16 here: its primitives work on copies in float32
    const Arithmetic* arithmetic;

    // requested_threads 0: one per physical core, no more than most_threads unless that is 0.
    Engine(int32_t requested_threads, int32_t most_threads);

    // OpenMP's thread count belongs to the calling thread, so it is set before all work, and the team it gives checked when it is new; the
    // same runtime serves oneDNN.
    void use_threads() const;
};

} // namespace hbn

struct hbn_engine : hbn::Counted {
    std::shared_ptr<hbn::Engine> shared;
};

#endif
