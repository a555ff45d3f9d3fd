#include "guard.hpp"

#include "dnnl_compat.hpp"

#include <algorithm>
#include <cstring>
#include <new>

namespace hbn {

std::atomic<int64_t> live_objects{0};

namespace {

thread_local std::string last_error;

hbn_status fail(hbn_status status, const char* text) noexcept {
    try {
        last_error = text;
    } catch (...) {
        last_error.clear(); // no memory for the text; the status still tells
    }
    return status;
}

hbn_status status_of(const dnnl::error& e) {
    switch (e.status) {
    case dnnl_out_of_memory:
        return HBN_OUT_OF_MEMORY;
    case dnnl_unimplemented:
        return HBN_UNSUPPORTED;
    case dnnl_invalid_arguments:
        return HBN_INVALID_ARGUMENT;
    default:
        return HBN_RUNTIME;
    }
}

} // namespace

hbn_status report_current_exception() noexcept {
    try {
        throw;
    } catch (const Error& e) {
        return fail(e.status, e.what());
    } catch (const dnnl::error& e) {
        return fail(status_of(e), e.what());
    } catch (const std::bad_alloc&) {
        return fail(HBN_OUT_OF_MEMORY, "out of memory");
    } catch (const std::exception& e) {
        return fail(HBN_INTERNAL, e.what());
    } catch (...) {
        return fail(HBN_INTERNAL, "unknown exception");
    }
}

void copy_text(const std::string& from, char* text, int32_t capacity) {
    if (text == nullptr || capacity < 1) {
        return;
    }
    const size_t length = std::min(from.size(), static_cast<size_t>(capacity) - 1);
    std::memcpy(text, from.data(), length);
    text[length] = '\0';
}

} // namespace hbn

int32_t hbn_abi_version(void) noexcept {
    return HBN_ABI_VERSION;
}

const char* hbn_status_name(hbn_status status) noexcept {
    switch (status) {
    case HBN_OK:
        return "ok";
    case HBN_INVALID_ARGUMENT:
        return "invalid argument";
    case HBN_UNSUPPORTED:
        return "unsupported";
    case HBN_OUT_OF_MEMORY:
        return "out of memory";
    case HBN_RUNTIME:
        return "runtime error";
    case HBN_INTERNAL:
        return "internal error";
    default:
        return "unknown status";
    }
}

int32_t hbn_last_error(char* text, int32_t capacity) noexcept {
    hbn::copy_text(hbn::last_error, text, capacity);
    return static_cast<int32_t>(hbn::last_error.size());
}

hbn_status hbn_live_objects(int64_t* count) noexcept {
    return hbn::guard([&] { hbn::checked_handle(count, "count") = hbn::live_objects.load(std::memory_order_relaxed); });
}
