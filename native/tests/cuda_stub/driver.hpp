// What the parts of libcuda.so.1 share: statuses, the kinds of handles, and the one device's state.
#pragma once

#include <deque>
#include <map>
#include <vector>

#include "emulator.hpp"
#include "stub.hpp"

namespace driver {

enum {
    kSuccess = 0,
    kInvalidValue = 1,
    kOutOfMemory = 2,
    kNotInitialized = 3,
    kInvalidDevice = 101,
    kInvalidImage = 200,
    kInvalidContext = 201,
    kInvalidHandle = 400,
    kNotFound = 500,
    kNotReady = 600,
    kContextIsDestroyed = 709,
    kCooperativeTooLarge = 720,
    kCaptureUnsupported = 900,
    kCaptureInvalidated = 901,
    kCaptureUnjoined = 904,
    kCaptureIsolation = 905,
    kCapturedEvent = 907
};

constexpr uint32_t kContext = 0xC0DE0001, kStream = 0xC0DE0002, kEvent = 0xC0DE0003, kModule = 0xC0DE0004, kFunction = 0xC0DE0005,
                   kGraph = 0xC0DE0006, kExec = 0xC0DE0007;

using stub::as;
using stub::Object;
using Work = std::function<void()>;

struct Event;

// Work, or a wait for the `recording`-th recording of an event.
struct Item {
    Work work;
    Event* event;
    long long recording;
};

struct Stream : Object {
    std::deque<Item> queue;
    std::vector<Work>* capture = nullptr; // what is recorded, here or on the stream where the recording began
    Stream* origin = nullptr;             // where it began
    bool spoilt = false;                  // something that a recording does not allow was called; its end says so
    bool ahead = false;                   // it has recorded work that the origin does not wait for yet
};

struct Event : Object {
    bool timing;
    Stream* stream; // that it was last recorded on
    Stream* origin; // of the recording it was last recorded in; null outside of one
    long long recorded, reached;
    double seconds; // when it was last reached
};

// The first error after which the context is dead; 0 while it lives.
extern int sticky;

// Bytes in use on the device.
extern size_t allocated;

// True when this thread has made the retained context its own.
bool live_context();

// Functions whose documentation lists CUDA_ERROR_INVALID_CONTEXT or a destroyed one: the calling thread must have a live context.
#define STUB_CONTEXT()                                                                                                                     \
    do {                                                                                                                                   \
        if (!driver::live_context()) {                                                                                                     \
            if (driver::destroyed())                                                                                                       \
                return driver::kContextIsDestroyed;                                                                                        \
            stub::problem(__func__, "no context is current on this thread");                                                               \
            return driver::kInvalidContext;                                                                                                \
        }                                                                                                                                  \
    } while (0)

// True when another user of the process has reset the device.
bool destroyed();

// Makes all device memory accessible, or not.
void protect(int protection);

// Does the work of one stream until `done` holds or it is empty; of others only what it waits for.
void advance(Stream* stream, const std::function<bool()>& done);

} // namespace driver
