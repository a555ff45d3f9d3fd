// libcuda.so.1
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <vector>

#include "emulator.hpp"
#include "stub.hpp"

emulator::Prepare hbn_find_0(const char*);
emulator::Prepare hbn_find_1(const char*);
emulator::Prepare hbn_find_2(const char*);

namespace {

enum {
    kSuccess = 0,
    kInvalidValue = 1,
    kOutOfMemory = 2,
    kNotInitialized = 3,
    kNoDevice = 100,
    kInvalidDevice = 101,
    kInvalidImage = 200,
    kInvalidContext = 201,
    kInvalidHandle = 400,
    kNotFound = 500,
    kCaptureUnsupported = 900
};

struct Object {
    uint32_t magic;
};
constexpr uint32_t kContext = 0xC0DE0001, kStream = 0xC0DE0002, kEvent = 0xC0DE0003, kModule = 0xC0DE0004, kFunction = 0xC0DE0005,
                   kGraph = 0xC0DE0006, kExec = 0xC0DE0007;

using Work = std::function<void()>;

struct Context : Object {};
struct Event : Object {
    bool timing;
    bool recorded;
};
struct Module : Object {
    int element;
};
struct Function : Object {
    emulator::Prepare prepare;
};
struct Graph : Object {
    std::vector<Work> work;
};
struct Stream : Object {
    std::vector<Work> queue;
    std::vector<Work>* capture = nullptr;
};

std::recursive_mutex gate;
std::map<std::string, long long> settings;
std::map<std::string, long long> calls;
std::string first_problem;
std::map<char*, size_t> allocations;
std::set<void*> pinned;
size_t allocated;
bool initialized;
int sticky;
int accesses;
int retained;
thread_local Context* current;
Context context{{kContext}};
std::vector<Stream*> streams;

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

template <class T> T* as(void* handle, uint32_t magic) {
    return handle && static_cast<Object*>(handle)->magic == magic ? static_cast<T*>(handle) : nullptr;
}

void protect(int protection) {
    for (auto& [address, bytes] : allocations)
        mprotect(address, bytes, protection);
}

bool live_context() {
    return current == &context && retained > 0;
}

} // namespace

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

bool on_device(const void* address, size_t bytes) {
    const char* first = static_cast<const char*>(address);
    auto next = allocations.upper_bound(const_cast<char*>(first));
    if (next == allocations.begin())
        return false;
    auto& [begin, size] = *--next;
    return first >= begin && first + bytes <= begin + size;
}

bool capturing() {
    for (Stream* stream : streams) {
        if (stream->capture)
            return true;
    }
    return false;
}

void enqueue(void* handle, std::function<void()> work) {
    Stream* stream = as<Stream>(handle, kStream);
    if (!stream) {
        problem("work", "enqueued on something that is no stream of ours");
        return;
    }
    (stream->capture ? *stream->capture : stream->queue).push_back(std::move(work));
}

void finish() {
    Access access;
    for (Stream* stream : streams) {
        std::vector<Work> queue;
        queue.swap(stream->queue);
        for (Work& work : queue) {
            if (sticky)
                break;
            work();
        }
    }
}

Access::Access() {
    if (accesses++ == 0)
        protect(PROT_READ | PROT_WRITE);
}

Access::~Access() {
    if (--accesses == 0 && setting("guard", 1))
        protect(PROT_NONE);
}

} // namespace stub

using stub::Access;

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
    switch (error) {
    case 1:
        *text = "CUDA_ERROR_INVALID_VALUE";
        break;
    case 2:
        *text = "CUDA_ERROR_OUT_OF_MEMORY";
        break;
    case 100:
        *text = "CUDA_ERROR_NO_DEVICE";
        break;
    case 700:
        *text = "CUDA_ERROR_ILLEGAL_ADDRESS";
        break;
    case 719:
        *text = "CUDA_ERROR_LAUNCH_FAILED";
        break;
    case 803:
        *text = "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH";
        break;
    default:
        *text = "CUDA_ERROR_UNKNOWN";
        break;
    }
    return kSuccess;
}

STUB_EXPORT int cuGetErrorString(int error, const char** text) {
    stub::enter(__func__);
    switch (error) {
    case 1:
        *text = "invalid argument";
        break;
    case 2:
        *text = "out of memory";
        break;
    case 100:
        *text = "no CUDA-capable device is detected";
        break;
    case 700:
        *text = "an illegal memory access was encountered";
        break;
    case 719:
        *text = "unspecified launch failure";
        break;
    case 803:
        *text = "system has unsupported display driver / cuda driver combination";
        break;
    default:
        *text = "unknown error";
        break;
    }
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
    if (ordinal >= stub::setting("devices", 1))
        return kInvalidDevice;
    *device = ordinal;
    return kSuccess;
}

STUB_EXPORT int cuDeviceGetName(char* name, int length, int device) {
    STUB_ENTER();
    STUB_CHECK(name && length >= 32 && device == 0, kInvalidValue);
    snprintf(name, length, "Stub device");
    return kSuccess;
}

STUB_EXPORT int cuDeviceTotalMem_v2(size_t* bytes, int device) {
    STUB_ENTER();
    STUB_CHECK(bytes && device == 0, kInvalidValue);
    *bytes = static_cast<size_t>(stub::setting("memory", 4ll << 30));
    return kSuccess;
}

STUB_EXPORT int cuDeviceGetAttribute(int* value, int attribute, int device) {
    STUB_ENTER();
    STUB_CHECK(value && device == 0, kInvalidValue);
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

STUB_EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
    STUB_ENTER();
    STUB_CHECK(device == 0 && retained > 0, kInvalidContext);
    --retained;
    return kSuccess;
}

STUB_EXPORT int cuCtxSetCurrent(void* handle) {
    STUB_ENTER();
    STUB_CHECK(as<Context>(handle, kContext), kInvalidContext);
    current = static_cast<Context*>(handle);
    return kSuccess;
}

STUB_EXPORT int cuCtxGetDevice(int* device) {
    STUB_ENTER();
    STUB_CHECK(device && live_context(), kInvalidContext);
    *device = 0;
    return kSuccess;
}

STUB_EXPORT int cuStreamCreate(void** out, unsigned flags) {
    STUB_ENTER();
    STUB_CHECK(out && live_context(), kInvalidContext);
    STUB_CHECK(flags == 1 /* CU_STREAM_NON_BLOCKING: the legacy stream breaks captures */, kInvalidValue);
    Stream* stream = new Stream;
    stream->magic = kStream;
    streams.push_back(stream);
    *out = stream;
    return kSuccess;
}

STUB_EXPORT int cuStreamDestroy_v2(void* handle) {
    STUB_ENTER();
    Stream* stream = as<Stream>(handle, kStream);
    STUB_CHECK(stream, kInvalidHandle);
    stub::finish();
    for (size_t i = 0; i < streams.size(); ++i) {
        if (streams[i] == stream)
            streams.erase(streams.begin() + i);
    }
    stream->magic = 0;
    delete stream;
    return kSuccess;
}

STUB_EXPORT int cuStreamSynchronize(void* handle) {
    STUB_ENTER();
    STUB_CHECK(live_context() && as<Stream>(handle, kStream), kInvalidHandle);
    STUB_CHECK(!stub::capturing(), kCaptureUnsupported);
    stub::finish();
    return sticky;
}

STUB_EXPORT int cuStreamBeginCapture_v2(void* handle, int mode) {
    STUB_ENTER();
    Stream* stream = as<Stream>(handle, kStream);
    STUB_CHECK(live_context() && stream && !stream->capture, kInvalidHandle);
    STUB_CHECK(mode == 1 /* CU_STREAM_CAPTURE_MODE_THREAD_LOCAL */, kInvalidValue);
    stream->capture = new std::vector<Work>;
    return kSuccess;
}

STUB_EXPORT int cuStreamEndCapture(void* handle, void** out) {
    STUB_ENTER();
    Stream* stream = as<Stream>(handle, kStream);
    STUB_CHECK(stream && stream->capture && out, kInvalidHandle);
    Graph* graph = new Graph;
    graph->magic = kGraph;
    graph->work.swap(*stream->capture);
    delete stream->capture;
    stream->capture = nullptr;
    *out = graph;
    return kSuccess;
}

STUB_EXPORT int cuEventCreate(void** out, unsigned flags) {
    STUB_ENTER();
    STUB_CHECK(out && live_context() && (flags == 0 || flags == 2 /* CU_EVENT_DISABLE_TIMING */), kInvalidValue);
    Event* event = new Event{{kEvent}, flags == 0, false};
    *out = event;
    return kSuccess;
}

STUB_EXPORT int cuEventRecord(void* handle, void* stream) {
    STUB_ENTER();
    Event* event = as<Event>(handle, kEvent);
    STUB_CHECK(event && as<Stream>(stream, kStream), kInvalidHandle);
    event->recorded = true;
    return kSuccess;
}

STUB_EXPORT int cuEventSynchronize(void* handle) {
    STUB_ENTER();
    STUB_CHECK(as<Event>(handle, kEvent) && !stub::capturing(), kInvalidHandle);
    stub::finish();
    return sticky;
}

STUB_EXPORT int cuEventElapsedTime(float* milliseconds, void* start, void* end) {
    STUB_ENTER();
    Event *from = as<Event>(start, kEvent), *to = as<Event>(end, kEvent);
    STUB_CHECK(milliseconds && from && to && from->timing && to->timing && from->recorded && to->recorded, kInvalidHandle);
    *milliseconds = 1;
    return kSuccess;
}

STUB_EXPORT int cuEventDestroy_v2(void* handle) {
    STUB_ENTER();
    Event* event = as<Event>(handle, kEvent);
    STUB_CHECK(event, kInvalidHandle);
    event->magic = 0;
    delete event;
    return kSuccess;
}

STUB_EXPORT int cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
    STUB_ENTER();
    STUB_CHECK(free_bytes && total && live_context(), kInvalidContext);
    *total = static_cast<size_t>(stub::setting("memory", 4ll << 30));
    *free_bytes = *total > allocated ? *total - allocated : 0;
    return kSuccess;
}

STUB_EXPORT int cuMemAlloc_v2(void** out, size_t bytes) {
    STUB_ENTER();
    STUB_CHECK(out && bytes > 0 && live_context(), kInvalidValue);
    STUB_CHECK(!stub::capturing(), kCaptureUnsupported);
    if (allocated + bytes > static_cast<size_t>(stub::setting("memory", 4ll << 30)))
        return kOutOfMemory;
    size_t page = sysconf(_SC_PAGESIZE), size = (bytes + page - 1) / page * page;
    void* memory = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return kOutOfMemory;
    allocations[static_cast<char*>(memory)] = size;
    allocated += size;
    Access access;
    memset(memory, 0xCD, size < (1 << 20) ? size : 1 << 20);
    *out = memory;
    return kSuccess;
}

STUB_EXPORT int cuMemFree_v2(void* address) {
    STUB_ENTER();
    STUB_CHECK(!stub::capturing(), kCaptureUnsupported);
    auto found = allocations.find(static_cast<char*>(address));
    STUB_CHECK(found != allocations.end(), kInvalidValue);
    stub::finish();
    allocated -= found->second;
    munmap(address, found->second);
    allocations.erase(found);
    return kSuccess;
}

STUB_EXPORT int cuMemHostAlloc(void** out, size_t bytes, unsigned flags) {
    STUB_ENTER();
    STUB_CHECK(out && bytes > 0 && flags <= 7 && live_context() && !stub::capturing(), kInvalidValue);
    *out = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    pinned.insert(*out);
    return kSuccess;
}

STUB_EXPORT int cuMemFreeHost(void* address) {
    STUB_ENTER();
    STUB_CHECK(pinned.erase(address) == 1, kInvalidValue);
    stub::finish();
    free(address);
    return kSuccess;
}

STUB_EXPORT int cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
    STUB_ENTER();
    STUB_CHECK(from && as<Stream>(stream, kStream) && live_context(), kInvalidValue);
    STUB_CHECK(stub::on_device(to, bytes), kInvalidValue);
    if (pinned.count(const_cast<void*>(from))) {
        stub::enqueue(stream, [=] { memcpy(to, from, bytes); });
    } else {
        // Pageable memory is read before the call returns.
        std::vector<char> copy(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
        stub::enqueue(stream, [=] { memcpy(to, copy.data(), bytes); });
    }
    return kSuccess;
}

STUB_EXPORT int cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
    STUB_ENTER();
    STUB_CHECK(to && as<Stream>(stream, kStream) && live_context(), kInvalidValue);
    STUB_CHECK(stub::on_device(from, bytes), kInvalidValue);
    stub::enqueue(stream, [=] { memcpy(to, from, bytes); });
    return kSuccess;
}

STUB_EXPORT int cuMemsetD8Async(void* to, unsigned char value, size_t bytes, void* stream) {
    STUB_ENTER();
    STUB_CHECK(as<Stream>(stream, kStream) && live_context(), kInvalidValue);
    STUB_CHECK(stub::on_device(to, bytes), kInvalidValue);
    stub::enqueue(stream, [=] { memset(to, value, bytes); });
    return kSuccess;
}

STUB_EXPORT int cuModuleLoadData(void** out, const void* image) {
    STUB_ENTER();
    STUB_CHECK(out && image && live_context() && !stub::capturing(), kInvalidValue);
    int element = -1;
    if (sscanf(static_cast<const char*>(image), "hbn stub cubin sm_90 element %d", &element) != 1 || element < 0 || element > 2)
        return kInvalidImage;
    *out = new Module{{kModule}, element};
    return kSuccess;
}

STUB_EXPORT int cuModuleUnload(void* handle) {
    STUB_ENTER();
    Module* module = as<Module>(handle, kModule);
    STUB_CHECK(module, kInvalidHandle);
    module->magic = 0;
    delete module;
    return kSuccess;
}

STUB_EXPORT int cuModuleGetFunction(void** out, void* handle, const char* name) {
    STUB_ENTER();
    Module* module = as<Module>(handle, kModule);
    STUB_CHECK(out && module && name, kInvalidHandle);
    emulator::Prepare prepare = module->element == 0 ? hbn_find_0(name) : module->element == 1 ? hbn_find_1(name) : hbn_find_2(name);
    if (!prepare) {
        stub::problem(__func__, std::string("there is no kernel ") + name);
        return kNotFound;
    }
    *out = new Function{{kFunction}, prepare};
    return kSuccess;
}

STUB_EXPORT int cuLaunchKernel(void* handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                               unsigned shared_bytes, void* stream, void** parameters, void** extra) {
    STUB_ENTER();
    Function* function = as<Function>(handle, kFunction);
    STUB_CHECK(function && as<Stream>(stream, kStream) && live_context(), kInvalidHandle);
    STUB_CHECK(gx > 0 && gy > 0 && gz > 0 && gy < 65536 && gz < 65536 && gx < 0x80000000u, kInvalidValue);
    STUB_CHECK(bx > 0 && by > 0 && bz > 0 && bx * by * bz <= 256 /* the kernels' launch bounds */, kInvalidValue);
    STUB_CHECK(shared_bytes <= 48 << 10 && parameters && !extra, kInvalidValue);
    std::function<void()> body = function->prepare(parameters);
    emulator::Dim grid{gx, gy, gz}, block{bx, by, bz};
    bool fails = stub::setting("fault_at_launch", 0) != 0;
    stub::enqueue(stream, [=] {
        if (fails) {
            sticky = stub::kLaunchFailed;
        } else {
            emulator::run(body, grid, block, shared_bytes);
        }
    });
    return kSuccess;
}

STUB_EXPORT int cuGraphInstantiateWithFlags(void** out, void* handle, unsigned long long flags) {
    STUB_ENTER();
    Graph* graph = as<Graph>(handle, kGraph);
    STUB_CHECK(out && graph && flags == 0, kInvalidValue);
    *out = new Graph{{kExec}, graph->work};
    return kSuccess;
}

STUB_EXPORT int cuGraphGetNodes(void* handle, void** nodes, size_t* count) {
    STUB_ENTER();
    Graph* graph = as<Graph>(handle, kGraph);
    STUB_CHECK(graph && !nodes && count, kInvalidValue);
    *count = graph->work.size();
    return kSuccess;
}

STUB_EXPORT int cuGraphUpload(void* handle, void* stream) {
    STUB_ENTER();
    STUB_CHECK(as<Graph>(handle, kExec) && as<Stream>(stream, kStream), kInvalidHandle);
    return kSuccess;
}

STUB_EXPORT int cuGraphLaunch(void* handle, void* stream) {
    STUB_ENTER();
    Graph* graph = as<Graph>(handle, kExec);
    STUB_CHECK(graph && as<Stream>(stream, kStream) && live_context(), kInvalidHandle);
    for (Work& work : graph->work)
        stub::enqueue(stream, work);
    return kSuccess;
}

STUB_EXPORT int cuGraphExecDestroy(void* handle) {
    STUB_ENTER();
    Graph* graph = as<Graph>(handle, kExec);
    STUB_CHECK(graph, kInvalidHandle);
    stub::finish();
    delete graph;
    return kSuccess;
}

STUB_EXPORT int cuGraphDestroy(void* handle) {
    STUB_ENTER();
    Graph* graph = as<Graph>(handle, kGraph);
    STUB_CHECK(graph, kInvalidHandle);
    delete graph;
    return kSuccess;
}
