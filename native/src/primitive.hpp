// Kernels whose work is one oneDNN primitive.
#ifndef HBN_PRIMITIVE_HPP
#define HBN_PRIMITIVE_HPP

#include "kernel.hpp"

#include <unordered_map>

namespace hbn {

// One primitive and the way its arguments get to it: directly, or, where the tensor lies otherwise than the primitive wants (a slice,
// another blocking, bfloat16 that oneDNN has not), through a staging buffer in scratch. Stagings are reported as conversions.
struct PrimitiveKernel : hbn_kernel {
    using hbn_kernel::hbn_kernel;

    void execute(void* const* addresses, char* scratch, int64_t step, float learning_rate) override;

protected:
    // Both: an output that the primitive adds to.
    enum class Flow { In, Out, Both };

    // Tensor number `index` is the primitive's argument `argument`, wanted in the layout `wanted`; `given` is how the tensor lies (dense).
    void bind(int argument, size_t index, const char* name, Flow flow, const memory::desc& given, const memory::desc& wanted);
    void bind(int argument, size_t index, const char* name, Flow flow, const memory::desc& wanted) {
        bind(argument, index, name, flow, at(index).md(), wanted);
    }
    // An argument that lives in scratch only.
    void bind_scratch(int argument, const memory::desc& md);
    // Per-channel values: the primitive sees the real ones; padding of an output is set to zero.
    void bind_values(int argument, size_t index, Flow flow);
    // Decides and checks per-channel values for a kernel that does not go through the primitive. False: absent.
    bool take_values(size_t index);

    // Puts what leaves scratch for tensor `index` through ReLU on its way. False: it does not lie in scratch first.
    bool relu_on_way_out(size_t index);

    // For an output whose memory desc does not show its padded channels to oneDNN.
    void keep_padding_zero(size_t index) { padded_outputs.push_back(index); }

    // Names the implementation and takes scratch for its scratchpad; call once, after the binds.
    template <typename Pd> void finish(const Pd& pd) {
        implementation = pd.impl_info_str() + std::string(widens() ? " on widened bf16" : "");
        bind_scratch(DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc());
        primitive = dnnl::primitive(pd.get());
    }

private:
    struct Staged {
        size_t index;
        Flow flow;
        bool copied;                          // between the tensor and `dense`
        int64_t dense_offset, wanted_offset;  // in scratch
        std::optional<dnnl::reorder> in, out; // between `dense` and `wanted`
        memory dense, wanted;
        bool relu = false; // on the way out
    };
    struct Direct {
        size_t index;
        memory argument;
    };
    struct InScratch {
        int64_t offset;
        memory argument;
    };
    struct Tail {
        size_t index;
        int64_t from, to;
    };

    std::vector<Direct> direct;
    std::vector<Staged> staged;
    std::vector<InScratch> in_scratch;
    std::vector<Tail> tails;
    std::vector<size_t> padded_outputs;
    std::unordered_map<int, memory> arguments;
    dnnl::primitive primitive;

    bool widens() const;
    void copy(const Staged& s, void* address, char* scratch, bool in) const;
    void stage_in(Staged& s, void* address, char* scratch);
    void stage_out(Staged& s, void* address, char* scratch);
};

// User-managed scratchpad always: one scratch serves all kernels of a session.
dnnl::primitive_attr scratch_attr();

// Runs `make`; "not implemented" or "invalid", from oneDNN or from a choice among its answers, becomes nothing, with its text in `why`.
template <typename Make> auto attempt(Make make, std::string& why) -> std::optional<decltype(make())> {
    try {
        return make();
    } catch (const dnnl::error& e) {
        if (e.status != dnnl_unimplemented && e.status != dnnl_invalid_arguments) {
            throw;
        }
        why = e.what();
        return std::nullopt;
    } catch (const Error& e) {
        if (e.status != HBN_UNSUPPORTED) {
            throw;
        }
        why = e.what();
        return std::nullopt;
    }
}

// oneDNN names its plain loops "ref:any" and the like; the letters may be in another name ("brgemm:..._prefetch").
template <typename Pd> bool is_reference(const Pd& pd) {
    return std::string(pd.impl_info_str()).rfind("ref", 0) == 0;
}

// "oneDNN 2.6.3 has no implementation of <what> (<why>); ..."
[[noreturn]] void no_implementation(const std::string& what, const std::string& why);

} // namespace hbn

#endif
