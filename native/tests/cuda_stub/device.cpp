// libcuda.so.1: what the tests set and ask, errors, the device and its context.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "driver.hpp"

using namespace driver;

namespace {

struct Context : Object {};

std::recursive_mutex gate;
std::map<std::string, long long> settings;
std::map<std::string, long long> calls;
std::string first_problem;
bool initialized;
int retained;
thread_local Context* current;
Context context{{kContext}};

struct Error {
    int number;
    const char *name, *text;
};
const Error errors[] = {
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {709, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination"},
    {0, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

const Error& error_of(int number) {
    const Error* error = errors;
    while (error->number != 0 && error->number != number)
        ++error;
    return *error;
}

void read_environment() {
    static bool done;
    if (done)
        return;
    done = true;
    const char* text = getenv("HBN_STUB");
    if (!text)
        return;
    std::string all = text;
    for (size_t at = 0; at < all.size();) {
        size_t end = all.find(';', at);
        end = end == std::string::npos ? all.size() : end;
        size_t equals = all.rfind('=', end);
        if (equals != std::string::npos && equals > at)
            settings[all.substr(at, equals - at)] = atoll(all.c_str() + equals + 1);
        at = end + 1;
    }
}

} // namespace

int driver::sticky;

bool driver::destroyed() {
    return stub::setting("device_reset", 0) != 0;
}

bool driver::live_context() {
    return current == &context && retained > 0 && !destroyed();
}

namespace stub {

int enter(const char* function) {
    std::lock_guard<std::recursive_mutex> lock(gate);
    read_environment();
    ++calls[function];
    std::string key = std::string("fail:") + function;
    auto always = settings.find(key + "*");
    if (always != settings.end())
        return static_cast<int>(always->second);
    auto once = settings.find(key);
    if (once != settings.end()) {
        int status = static_cast<int>(once->second);
        settings.erase(once);
        return status;
    }
    return sticky && strncmp(function, "cu", 2) == 0 && strncmp(function, "cudnn", 5) != 0 ? sticky : 0;
}

long long setting(const char* name, long long otherwise) {
    read_environment();
    auto found = settings.find(name);
    return found == settings.end() ? otherwise : found->second;
}

bool problem(const char* function, const std::string& text) {
    if (first_problem.empty())
        first_problem = std::string(function) + ": " + text;
    return false;
}

} // namespace stub

// For the tests.
STUB_EXPORT void hbn_stub_set(const char* name, long long value) {
    settings[name] = value;
}
STUB_EXPORT void hbn_stub_unset(const char* name) {
    settings.erase(name);
}
STUB_EXPORT long long hbn_stub_calls(const char* function) {
    return calls.count(function) ? calls[function] : 0;
}
STUB_EXPORT const char* hbn_stub_problem() {
    return first_problem.c_str();
}
STUB_EXPORT long long hbn_stub_allocated() {
    return static_cast<long long>(allocated);
}
STUB_EXPORT void hbn_stub_reset() {
    settings.clear();
    first_problem.clear();
    sticky = 0;
}

// All can be asked what they are; the first alone has memory and computes.
static bool is_device(int device) {
    return device >= 0 && device < stub::setting("devices", 1);
}

STUB_EXPORT int cuInit(unsigned flags) {
    STUB_ENTER();
    STUB_CHECK(flags == 0, kInvalidValue);
    initialized = true;
    return kSuccess;
}

STUB_EXPORT int cuDriverGetVersion(int* version) {
    STUB_ENTER();
    STUB_CHECK(version, kInvalidValue);
    *version = 13000;
    return kSuccess;
}

STUB_EXPORT int cuGetErrorName(int error, const char** text) {
    stub::enter(__func__);
    *text = error_of(error).name;
    return kSuccess;
}

STUB_EXPORT int cuGetErrorString(int error, const char** text) {
    stub::enter(__func__);
    *text = error_of(error).text;
    return kSuccess;
}

STUB_EXPORT int cuDeviceGetCount(int* count) {
    STUB_ENTER();
    STUB_CHECK(initialized && count, kNotInitialized);
    *count = static_cast<int>(stub::setting("devices", 1));
    return kSuccess;
}

STUB_EXPORT int cuDeviceGet(int* device, int ordinal) {
    STUB_ENTER();
    STUB_CHECK(device && ordinal >= 0, kInvalidValue);
    if (!is_device(ordinal))
        return kInvalidDevice;
    *device = ordinal;
    return kSuccess;
}

STUB_EXPORT int cuDeviceGetName(char* name, int length, int device) {
    STUB_ENTER();
    STUB_CHECK(name && length >= 32 && is_device(device), kInvalidValue);
    snprintf(name, length, device == 0 ? "Stub device" : "Stub device %d", device);
    return kSuccess;
}

STUB_EXPORT int cuDeviceTotalMem_v2(size_t* bytes, int device) {
    STUB_ENTER();
    STUB_CHECK(bytes && is_device(device), kInvalidValue);
    *bytes = static_cast<size_t>(stub::setting("memory", 4ll << 30));
    return kSuccess;
}

STUB_EXPORT int cuDeviceGetAttribute(int* value, int attribute, int device) {
    STUB_ENTER();
    STUB_CHECK(value && is_device(device), kInvalidValue);
    switch (attribute) {
    case 16:
        *value = static_cast<int>(stub::setting("multiprocessors", 4));
        return kSuccess;
    case 38:
        *value = 1 << 20;
        return kSuccess;
    case 75:
        *value = 9;
        return kSuccess;
    case 76:
        *value = 0;
        return kSuccess;
    case 95: // cooperative launches
        *value = static_cast<int>(stub::setting("cooperative", 1));
        return kSuccess;
    default:
        stub::problem(__func__, "unknown attribute");
        return kInvalidValue;
    }
}

STUB_EXPORT int cuDevicePrimaryCtxRetain(void** out, int device) {
    STUB_ENTER();
    STUB_CHECK(initialized && out && device == 0, kInvalidValue);
    ++retained;
    *out = &context;
    return kSuccess;
}

STUB_EXPORT int cuCtxSetCurrent(void* handle) {
    STUB_ENTER();
    STUB_CHECK(!handle || as<Context>(handle, kContext), kInvalidContext);
    if (handle && destroyed())
        return kContextIsDestroyed;
    current = static_cast<Context*>(handle);
    return kSuccess;
}

STUB_EXPORT int cuCtxGetDevice(int* device) {
    STUB_ENTER();
    STUB_CONTEXT();
    STUB_CHECK(device, kInvalidValue);
    *device = 0;
    return kSuccess;
}
