// libcuda.so.1: modules, and launches of their kernels.
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

STUB_EXPORT int cuLaunchKernel(void* handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                               unsigned shared_bytes, void* stream, void** parameters, void** extra) {
    STUB_ENTER();
    STUB_CONTEXT();
    Function* function = as<Function>(handle, kFunction);
    STUB_CHECK(function && as<Stream>(stream, kStream), kInvalidHandle);
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
