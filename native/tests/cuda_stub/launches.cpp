// libcuda.so.1: modules, and launches of their kernels.
#include <algorithm>
#include <cstdio>

#include "driver.hpp"

using namespace driver;

emulator::Prepare hbn_find_0(const char*);
emulator::Prepare hbn_find_1(const char*);
emulator::Prepare hbn_find_2(const char*);

namespace {

struct Module : Object {
    int element;
};
struct Function : Object {
    emulator::Prepare prepare;
};

} // namespace

STUB_EXPORT int cuModuleLoadData(void** out, const void* image) {
    STUB_ENTER();
    STUB_CONTEXT();
    STUB_CHECK(out && image && !stub::capturing(), kInvalidValue);
    int element = -1;
    if (sscanf(static_cast<const char*>(image), "hbn stub cubin sm_90 element %d", &element) != 1 || element < 0 || element > 2)
        return kInvalidImage;
    *out = new Module{{kModule}, element};
    return kSuccess;
}

STUB_EXPORT int cuModuleUnload(void* handle) {
    STUB_ENTER();
    STUB_CONTEXT();
    STUB_CHECK(stub::destroy<Module>(handle, kModule), kInvalidHandle);
    return kSuccess;
}

STUB_EXPORT int cuModuleGetFunction(void** out, void* handle, const char* name) {
    STUB_ENTER();
    STUB_CONTEXT();
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

// Blocks that a multiprocessor holds at a time: the kernels' launch bounds promise three, as far as its shared memory goes.
static int resident(unsigned shared_bytes) {
    constexpr unsigned kSharedOfMultiprocessor = 100 << 10, kReserved = 1 << 10;
    return static_cast<int>(std::min(3u, kSharedOfMultiprocessor / (shared_bytes + kReserved)));
}

STUB_EXPORT int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* handle, int threads, size_t shared_bytes) {
    STUB_ENTER();
    STUB_CONTEXT();
    STUB_CHECK(as<Function>(handle, kFunction), kInvalidHandle);
    STUB_CHECK(blocks && threads > 0 && threads <= 256 && shared_bytes <= 48 << 10, kInvalidValue);
    *blocks = static_cast<int>(stub::setting("resident_blocks", resident(static_cast<unsigned>(shared_bytes))));
    return kSuccess;
}

static int launch(const char* caller, bool cooperative, void* handle, emulator::Dim grid, emulator::Dim block, unsigned shared_bytes,
                  void* stream, void** parameters) {
    Function* function = as<Function>(handle, kFunction);
    if (!function || !as<Stream>(stream, kStream)) {
        stub::problem(caller, "expected a kernel and a stream");
        return kInvalidHandle;
    }
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 || grid.x >= 0x80000000u || block.x == 0 ||
        block.y == 0 || block.z == 0 || block.x * block.y * block.z > 256 /* the kernels' launch bounds */ || shared_bytes > 48 << 10 ||
        !parameters) {
        stub::problem(caller, "a grid, a block, shared memory or parameters are not what a launch may have");
        return kInvalidValue;
    }
    size_t most = static_cast<size_t>(stub::setting("multiprocessors", 4)) *
                  static_cast<size_t>(stub::setting("resident_blocks", resident(shared_bytes)));
    if (cooperative && static_cast<size_t>(grid.x) * grid.y * grid.z > most) {
        stub::problem(caller, "more blocks than the device holds at a time");
        return kCooperativeTooLarge;
    }
    std::function<void()> body = function->prepare(parameters);
    bool fails = stub::setting("fault_at_launch", 0) != 0;
    cooperative = cooperative && stub::setting("deny_cooperation", 0) == 0; // as if the program had asked for an ordinary launch
    stub::enqueue(stream, [=] {
        if (fails) {
            sticky = stub::kLaunchFailed;
        } else if (cooperative) {
            emulator::run_together(body, grid, block, shared_bytes);
        } else {
            emulator::run(body, grid, block, shared_bytes);
        }
    });
    return kSuccess;
}

STUB_EXPORT int cuLaunchKernel(void* handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                               unsigned shared_bytes, void* stream, void** parameters, void** extra) {
    STUB_ENTER();
    STUB_CONTEXT();
    STUB_CHECK(!extra, kInvalidValue);
    return launch(__func__, false, handle, {gx, gy, gz}, {bx, by, bz}, shared_bytes, stream, parameters);
}

STUB_EXPORT int cuLaunchCooperativeKernel(void* handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                                          unsigned shared_bytes, void* stream, void** parameters) {
    STUB_ENTER();
    STUB_CONTEXT();
    return launch(__func__, true, handle, {gx, gy, gz}, {bx, by, bz}, shared_bytes, stream, parameters);
}
