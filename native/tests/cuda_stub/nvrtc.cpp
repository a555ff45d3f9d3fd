// libnvrtc.so.12: "compiles" to an image that names the architecture and the element type, which the stub of the driver understands.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "stub.hpp"

namespace {

enum { kSuccess = 0, kInvalidInput = 3, kInvalidProgram = 4, kInvalidOption = 5, kCompilation = 6 };
constexpr uint32_t kMagic = 0xC0DE0101;

struct Program {
    uint32_t magic;
    std::string source, log, image;
};

Program* as_program(void* handle) {
    Program* program = static_cast<Program*>(handle);
    return program && program->magic == kMagic ? program : nullptr;
}

} // namespace

STUB_EXPORT int nvrtcVersion(int* major, int* minor) {
    STUB_ENTER();
    STUB_CHECK(major && minor, kInvalidInput);
    *major = 12;
    *minor = 99; // a version that will never be: nothing of the stub is mistaken for the real thing
    return kSuccess;
}

STUB_EXPORT const char* nvrtcGetErrorString(int status) {
    stub::enter(__func__);
    return status == kCompilation     ? "NVRTC_ERROR_COMPILATION"
           : status == kInvalidOption ? "NVRTC_ERROR_INVALID_OPTION"
           : status                   ? "NVRTC_ERROR"
                                      : "NVRTC_SUCCESS";
}

STUB_EXPORT int nvrtcGetNumSupportedArchs(int* count) {
    STUB_ENTER();
    STUB_CHECK(count, kInvalidInput);
    *count = 2;
    return kSuccess;
}

STUB_EXPORT int nvrtcGetSupportedArchs(int* architectures) {
    STUB_ENTER();
    STUB_CHECK(architectures, kInvalidInput);
    architectures[0] = 80;
    architectures[1] = 90;
    return kSuccess;
}

STUB_EXPORT int nvrtcCreateProgram(void** out, const char* source, const char* name, int headers, const char* const* header_texts,
                                   const char* const* header_names) {
    STUB_ENTER();
    STUB_CHECK(out && source && name && headers == 0 && !header_texts && !header_names, kInvalidInput);
    STUB_CHECK(strlen(name) < 100 && strstr(source, "HBN_KERNEL"), kInvalidInput);
    *out = new Program{kMagic, source, "", ""};
    return kSuccess;
}

STUB_EXPORT int nvrtcCompileProgram(void* handle, int count, const char* const* options) {
    STUB_ENTER();
    Program* program = as_program(handle);
    STUB_CHECK(program && count >= 0 && count < 64 && (count == 0 || options), kInvalidProgram);
    int element = -1, architecture = 0;
    for (int i = 0; i < count; ++i) {
        sscanf(options[i], "-DHBN_ELEMENT=%d", &element);
        sscanf(options[i], "--gpu-architecture=sm_%d", &architecture);
    }
    if (stub::setting("compile_error", 0)) {
        program->log = "batch_norm.cu(1): error: the stub was told to refuse\n";
        return kCompilation;
    }
    STUB_CHECK(element >= 0 && element <= 2 && architecture == 90, kInvalidOption);
    program->image = "hbn stub cubin sm_90 element " + std::to_string(element);
    program->image.push_back('\0');
    return kSuccess;
}

STUB_EXPORT int nvrtcGetCUBINSize(void* handle, size_t* bytes) {
    STUB_ENTER();
    Program* program = as_program(handle);
    STUB_CHECK(program && bytes, kInvalidProgram);
    *bytes = program->image.size();
    return kSuccess;
}

STUB_EXPORT int nvrtcGetCUBIN(void* handle, char* image) {
    STUB_ENTER();
    Program* program = as_program(handle);
    STUB_CHECK(program && image, kInvalidProgram);
    memcpy(image, program->image.data(), program->image.size());
    return kSuccess;
}

STUB_EXPORT int nvrtcGetProgramLogSize(void* handle, size_t* bytes) {
    STUB_ENTER();
    Program* program = as_program(handle);
    STUB_CHECK(program && bytes, kInvalidProgram);
    *bytes = program->log.size() + 1;
    return kSuccess;
}

STUB_EXPORT int nvrtcGetProgramLog(void* handle, char* log) {
    STUB_ENTER();
    Program* program = as_program(handle);
    STUB_CHECK(program && log, kInvalidProgram);
    memcpy(log, program->log.c_str(), program->log.size() + 1);
    return kSuccess;
}

STUB_EXPORT int nvrtcDestroyProgram(void** handle) {
    STUB_ENTER();
    Program* program = handle ? as_program(*handle) : nullptr;
    STUB_CHECK(program, kInvalidProgram);
    program->magic = 0;
    delete program;
    *handle = nullptr;
    return kSuccess;
}
