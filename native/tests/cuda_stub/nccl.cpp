// libnccl.so.2: communicators whose other ranks exist in name only. An average over n ranks is this rank's values times "nccl_factor" /
// 100, as if the others had what makes it so; 1 unless it is set.
#include <cstring>
#include <vector>

#include "stub.hpp"

namespace {

enum { kSuccess = 0, kInvalidArgument = 4, kInvalidUsage = 5, kRemoteError = 6 };

constexpr uint32_t kComm = 0xACC10001;

struct Id {
    char bytes[128];
};

struct Comm : stub::Object {
    int ranks, rank;
};

struct Call {
    float* values;
    size_t count;
    void* stream;
};

int groups;
std::vector<Call> grouped;

void average(const Call& call) {
    const long long percent = stub::setting("nccl_factor", 100);
    stub::enqueue(call.stream, [call, percent] {
        if (!stub::on_device(call.values, call.count * sizeof(float))) {
            stub::problem("ncclAllReduce", "the values lie outside of the device's memory");
            return;
        }
        for (size_t i = 0; i < call.count; i++)
            call.values[i] *= static_cast<float>(percent) / 100;
    });
}

} // namespace

STUB_EXPORT int ncclGetVersion(int* version) {
    STUB_ENTER();
    STUB_CHECK(version, kInvalidArgument);
    *version = static_cast<int>(stub::setting("nccl_version", 22809));
    return kSuccess;
}

STUB_EXPORT int ncclGetUniqueId(Id* id) {
    STUB_ENTER();
    STUB_CHECK(id, kInvalidArgument);
    for (int i = 0; i < 128; i++)
        id->bytes[i] = static_cast<char>(7 * i + 130);
    return kSuccess;
}

STUB_EXPORT int ncclCommInitRank(void** out, int ranks, Id id, int rank) {
    STUB_ENTER();
    STUB_CHECK(out && ranks > 0 && rank >= 0 && rank < ranks && !stub::capturing(), kInvalidArgument);
    for (int i = 0; i < 128; i++)
        STUB_CHECK(id.bytes[i] == static_cast<char>(7 * i + 130), kInvalidArgument);
    *out = new Comm{{kComm}, ranks, rank};
    return kSuccess;
}

STUB_EXPORT int ncclCommDestroy(void* comm) {
    STUB_ENTER();
    STUB_CHECK(stub::destroy<Comm>(comm, kComm), kInvalidArgument);
    return kSuccess;
}

STUB_EXPORT int ncclCommAbort(void* comm) {
    STUB_ENTER();
    STUB_CHECK(stub::destroy<Comm>(comm, kComm), kInvalidArgument);
    return kSuccess;
}

STUB_EXPORT int ncclCommGetAsyncError(void* comm, int* error) {
    STUB_ENTER();
    STUB_CHECK(stub::as<Comm>(comm, kComm) && error, kInvalidArgument);
    *error = static_cast<int>(stub::setting("nccl_async_error", kSuccess));
    return kSuccess;
}

STUB_EXPORT int ncclAllReduce(const void* send, void* receive, size_t count, int type, int operation, void* comm, void* stream) {
    STUB_ENTER();
    STUB_CHECK(stub::as<Comm>(comm, kComm) && stub::is_stream(stream), kInvalidArgument);
    STUB_CHECK(send == receive && count > 0 && type == 7 /* float32 */ && operation == 4 /* avg */, kInvalidArgument);
    const Call call{static_cast<float*>(receive), count, stream};
    if (groups > 0)
        grouped.push_back(call);
    else
        average(call);
    return kSuccess;
}

STUB_EXPORT int ncclGroupStart() {
    STUB_ENTER();
    groups++;
    return kSuccess;
}

STUB_EXPORT int ncclGroupEnd() {
    // A group that fails is over too.
    const int told = stub::enter(__func__);
    STUB_CHECK(groups > 0, kInvalidUsage);
    if (--groups == 0) {
        for (const Call& call : grouped)
            if (told == 0)
                average(call);
        grouped.clear();
    }
    return told;
}

STUB_EXPORT const char* ncclGetErrorString(int status) {
    stub::enter(__func__);
    return status == kInvalidUsage  ? "invalid usage"
           : status == kRemoteError ? "remote process exited or there was a network error"
                                    : "unhandled system error";
}

STUB_EXPORT const char* ncclGetLastError(void*) {
    stub::enter(__func__);
    return "the stand-in was told to fail";
}
