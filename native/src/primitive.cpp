#include "primitive.hpp"

#include <algorithm>
#include <cstring>

namespace hbn {

namespace {

void point(memory& m, void* address) {
    if (m.get_data_handle() != address) {
        m.set_data_handle(address);
    }
}

} // namespace

void PrimitiveKernel::bind(int argument, size_t index, const char* name, Flow flow, const memory::desc& given, const memory::desc& wanted) {
    const Tensor& t = at(index);
    const bool same = given == wanted, copied = !t.lies_whole() || t.widened;
    if (same && !copied) {
        direct.push_back({index, memory(wanted, engine->dnnl, nullptr)});
        arguments.emplace(argument, direct.back().argument);
        return;
    }
    Staged s{index, flow, copied, 0, 0, std::nullopt, std::nullopt, memory(given, engine->dnnl, nullptr), memory()};
    if (copied) {
        s.dense_offset = reserve(t.dense().physical_bytes());
    }
    if (same) {
        s.wanted = s.dense;
        s.wanted_offset = s.dense_offset;
    } else {
        s.wanted = memory(wanted, engine->dnnl, nullptr);
        s.wanted_offset = reserve(static_cast<int64_t>(wanted.get_size()));
        if (flow != Flow::Out) {
            s.in = dnnl::reorder(s.dense, s.wanted);
        }
        if (flow != Flow::In) {
            s.out = dnnl::reorder(s.wanted, s.dense);
        }
    }
    const bool activation = compat::dims_of(given) == t.dims() && t.desc.layout != HBN_OPAQUE;
    const std::string type = t.widened ? "bf16 " : "", from = type + (t.lies_whole() ? "" : "slice ") + layout_name(given, activation);
    const std::string to = (t.widened ? "fp32 " : "") + layout_name(wanted, activation);
    conversions +=
        (conversions.empty() ? "" : ", ") + std::string(name) + " " + (flow == Flow::In ? from + " -> " + to : to + " -> " + from);
    arguments.emplace(argument, s.wanted);
    staged.push_back(std::move(s));
}

void PrimitiveKernel::bind_scratch(int argument, const memory::desc& md) {
    if (md.get_size() == 0) {
        return;
    }
    in_scratch.push_back({reserve(static_cast<int64_t>(md.get_size())), memory(md, engine->dnnl, nullptr)});
    arguments.emplace(argument, in_scratch.back().argument);
}

bool PrimitiveKernel::take_values(size_t index) {
    if (!at(index).present()) {
        return false;
    }
    decide_plain(index);
    const Tensor& t = at(index);
    require(t.desc.n == 1 && t.desc.h == 1 && t.desc.w == 1 && !t.is_slice(),
            "per-channel values must have the shape 1xCx1x1 and be whole");
    return true;
}

void PrimitiveKernel::bind_values(int argument, size_t index, Flow flow) {
    if (!take_values(index)) {
        return;
    }
    const Tensor& t = at(index);
    direct.push_back({index, memory(row_major({t.desc.c}), engine->dnnl, nullptr)});
    arguments.emplace(argument, direct.back().argument);
    if (flow == Flow::Out && t.physical_count() > t.desc.c) {
        tails.push_back({index, t.desc.c, t.physical_count()});
    }
}

bool PrimitiveKernel::relu_on_way_out(size_t index) {
    const auto found = std::find_if(staged.begin(), staged.end(), [&](const Staged& s) { return s.index == index && s.copied; });
    if (found == staged.end() || at(index).widened) {
        return false;
    }
    found->relu = true;
    return true;
}

bool PrimitiveKernel::widens() const {
    return std::any_of(staged.begin(), staged.end(), [&](const Staged& s) { return at(s.index).widened; });
}

void PrimitiveKernel::copy(const Staged& s, void* address, char* scratch, bool in) const {
    const Tensor &t = at(s.index), dense = t.dense();
    char* to = scratch + s.dense_offset;
    const View outside = t.format ? t.run_view(address) : t.view(address), inside = t.format ? dense.run_view(to) : dense.view(to);
    const Extent extent = t.format ? t.run() : t.extent();
    if (!in && s.relu) {
        engine->arithmetic->select({Selection::Relu, extent, inside, {}, outside});
        return;
    }
    engine->arithmetic->copy(extent, in ? outside : inside, in ? inside : outside);
}

void PrimitiveKernel::stage_in(Staged& s, void* address, char* scratch) {
    if (s.copied) {
        copy(s, address, scratch, true);
        address = scratch + s.dense_offset;
    }
    point(s.dense, address);
    if (s.in) {
        point(s.wanted, scratch + s.wanted_offset);
        s.in->execute(engine->stream, s.dense, s.wanted);
    }
}

void PrimitiveKernel::stage_out(Staged& s, void* address, char* scratch) {
    if (s.out) {
        s.out->execute(engine->stream, s.wanted, s.dense);
    }
    if (s.copied) {
        copy(s, address, scratch, false);
    }
}

void PrimitiveKernel::execute(void* const* addresses, char* scratch, int64_t, float) {
    for (InScratch& s : in_scratch) {
        point(s.argument, scratch + s.offset);
    }
    for (Staged& s : staged) {
        if (s.flow != Flow::Out) {
            stage_in(s, addresses[s.index], scratch);
        } else {
            point(s.dense, s.copied ? scratch + s.dense_offset : addresses[s.index]);
            if (s.out) {
                point(s.wanted, scratch + s.wanted_offset);
            }
        }
    }
    for (Direct& d : direct) {
        point(d.argument, addresses[d.index]);
    }
    primitive.execute(engine->stream, arguments);
    for (Staged& s : staged) {
        if (s.flow != Flow::In) {
            stage_out(s, addresses[s.index], scratch);
        }
    }
    for (const Tail& t : tails) {
        std::memset(static_cast<float*>(addresses[t.index]) + t.from, 0, static_cast<size_t>(t.to - t.from) * sizeof(float));
    }
    for (const size_t i : padded_outputs) {
        engine->arithmetic->zero_padding(at(i).extent(), at(i).view(addresses[i]));
    }
    engine->stream.wait();
}

dnnl::primitive_attr scratch_attr() {
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return attr;
}

void no_implementation(const std::string& what, const std::string& why) {
    const dnnl_version_t* v = dnnl_version();
    unsupported("oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch) +
                " has no implementation of " + what + " (" + why + "); set " +
                (HBN_DNNL_V3 ? "ONEDNN_VERBOSE=dispatch" : "ONEDNN_VERBOSE=2") + " to see what it considered");
}

} // namespace hbn
