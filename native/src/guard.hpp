// The border of the library: inside, errors are exceptions; outside, a status and a text. This is the only place where one becomes the
// other.
#ifndef HBN_GUARD_HPP
#define HBN_GUARD_HPP

#include "hbn.h"

#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace hbn {

struct Error : std::runtime_error {
    hbn_status status;
    Error(hbn_status status, const std::string& text) : std::runtime_error(text), status(status) {}
};

[[noreturn]] inline void invalid(const std::string& text) {
    throw Error(HBN_INVALID_ARGUMENT, text);
}
[[noreturn]] inline void unsupported(const std::string& text) {
    throw Error(HBN_UNSUPPORTED, text);
}

inline void require(bool condition, const char* text) {
    if (!condition) {
        invalid(text);
    }
}

// A descriptor must be there and of the size this library was compiled with.
template <typename T> const T& checked(const T* desc, const char* name) {
    if (desc == nullptr) {
        invalid(std::string(name) + " is null");
    }
    if (desc->struct_size != static_cast<int32_t>(sizeof(T))) {
        invalid(std::string(name) + ": struct_size is " + std::to_string(desc->struct_size) + ", this library expects " +
                std::to_string(sizeof(T)));
    }
    return *desc;
}

template <typename T> T& checked_handle(T* handle, const char* name) {
    if (handle == nullptr) {
        invalid(std::string(name) + " is null");
    }
    return *handle;
}

// Turns the exception being handled into a status and this thread's message.
hbn_status report_current_exception() noexcept;

template <typename F> hbn_status guard(F&& body) noexcept {
    try {
        body();
        return HBN_OK;
    } catch (...) {
        return report_current_exception();
    }
}

// Counts objects that cross the border, for leak tests.
extern std::atomic<int64_t> live_objects;

struct Counted {
    Counted() { live_objects.fetch_add(1, std::memory_order_relaxed); }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
    ~Counted() { live_objects.fetch_sub(1, std::memory_order_relaxed); }
};

void copy_text(const std::string& from, char* text, int32_t capacity);

} // namespace hbn

#endif
