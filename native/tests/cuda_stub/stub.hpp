// A stand-in for NVIDIA's libraries: libcuda.so.1, libnvrtc.so.12, libcudnn.so.9 and libnccl.so.2 with just the functions the program
// binds. It runs the program's own CUDA kernels, compiled for the host, and computes convolutions by their definition, so that everything
// but speed can be tested without a GPU.
//
// It is written from NVIDIA's documentation, independently of the C# declarations, and it is strict: every argument is checked for what it
// must be (a handle of the right kind, an enum's value, an address inside an allocation with so many bytes behind it). What is wrong is
// kept as a problem, in words. Work on a stream is done at the latest possible moment (when something waits for it) and no further than
// that something asks, memory of the "device" cannot be touched from outside, and algorithm searches destroy their outputs: what a program
// may not rely on does not work here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#define STUB_EXPORT extern "C" __attribute__((visibility("default")))

#pragma GCC visibility push(default)
namespace stub {

constexpr int kLaunchFailed = 719;

// Counts a call of `function` and returns the status it was told to fail with, 0 when it is to work. HBN_STUB=name=value;... sets
// values for the whole process, hbn_stub_set at run time: "fail:cuMemAlloc_v2" = 2 makes the next call fail, "fail:cuInit*" every one.
int enter(const char* function);

// A number that was set, or its default.
long long setting(const char* name, long long otherwise);

// Keeps a problem; false, to return from a check.
bool problem(const char* function, const std::string& text);

// True when [address, address + bytes) lies inside one allocation on the device.
bool on_device(const void* address, size_t bytes);

// Appends work to a stream: done later, or recorded while the stream is being captured.
void enqueue(void* stream, std::function<void()> work);

bool capturing();

// True for a stream that lives.
bool is_stream(void* handle);

// Does everything enqueued.
void finish();

// While one lives, device memory may be touched.
struct Access {
    Access();
    ~Access();
};

// What a handle points to begins with a number that tells its kind, 0 once it is destroyed.
struct Object {
    uint32_t magic;
};

template <class T> T* as(void* handle, uint32_t magic) {
    return handle && static_cast<Object*>(handle)->magic == magic ? static_cast<T*>(handle) : nullptr;
}

// False when the handle is of another kind or already destroyed.
template <class T> bool destroy(void* handle, uint32_t magic) {
    T* object = as<T>(handle, magic);
    if (!object)
        return false;
    object->magic = 0;
    delete object;
    return true;
}

} // namespace stub
#pragma GCC visibility pop

// Checks one argument; the function returns `failure` when it does not hold.
#define STUB_CHECK(condition, failure)                                                                                                     \
    do {                                                                                                                                   \
        if (!(condition)) {                                                                                                                \
            stub::problem(__func__, "expected " #condition);                                                                               \
            return failure;                                                                                                                \
        }                                                                                                                                  \
    } while (0)

// Counts the call; returns the status the function was told to fail with.
#define STUB_ENTER()                                                                                                                       \
    do {                                                                                                                                   \
        int told = stub::enter(__func__);                                                                                                  \
        if (told != 0)                                                                                                                     \
            return told;                                                                                                                   \
    } while (0)
