// libcuda.so.1: memory of the device and pinned memory of the host, and copies between them.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>

#include "driver.hpp"

using namespace driver;

namespace {

std::map<char*, size_t> allocations;
std::set<void*> pinned;
int accesses;

} // namespace

size_t driver::allocated;

// Of large allocations only the beginning: changing the rest at every transfer would take most of the tests' time.
void driver::protect(int protection) {
    constexpr size_t kGuarded = 256 << 10;
    for (auto& [address, bytes] : allocations)
        mprotect(address, std::min(bytes, kGuarded), protection);
}

namespace stub {

bool on_device(const void* address, size_t bytes) {
    const char* first = static_cast<const char*>(address);
    auto next = allocations.upper_bound(const_cast<char*>(first));
    if (next == allocations.begin())
        return false;
    auto& [begin, size] = *--next;
    return first >= begin && first + bytes <= begin + size;
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

STUB_EXPORT int cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
    STUB_ENTER();
    STUB_CONTEXT();
    STUB_CHECK(free_bytes && total, kInvalidContext);
    *total = static_cast<size_t>(stub::setting("memory", 4ll << 30));
    *free_bytes = *total > allocated ? *total - allocated : 0;
    return kSuccess;
}

STUB_EXPORT int cuMemAlloc_v2(void** out, size_t bytes) {
    STUB_ENTER();
    STUB_CONTEXT();
    STUB_CHECK(out && bytes > 0, kInvalidValue);
    STUB_CHECK(!stub::capturing(), kCaptureUnsupported);
    if (allocated + bytes > static_cast<size_t>(stub::setting("memory", 4ll << 30)))
        return kOutOfMemory;
    size_t page = sysconf(_SC_PAGESIZE), size = (bytes + page - 1) / page * page;
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return kOutOfMemory;
    allocations[static_cast<char*>(memory)] = size;
    allocated += size;
    stub::Access access;
    memset(memory, 0xCD, size < (1 << 20) ? size : 1 << 20);
    *out = memory;
    return kSuccess;
}

STUB_EXPORT int cuMemFree_v2(void* address) {
    STUB_ENTER();
    STUB_CONTEXT();
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
    STUB_CONTEXT();
    STUB_CHECK(out && bytes > 0 && flags <= 7 && !stub::capturing(), kInvalidValue);
    *out = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    pinned.insert(*out);
    return kSuccess;
}

STUB_EXPORT int cuMemFreeHost(void* address) {
    STUB_ENTER();
    STUB_CONTEXT();
    STUB_CHECK(pinned.erase(address) == 1, kInvalidValue);
    stub::finish();
    free(address);
    return kSuccess;
}

STUB_EXPORT int cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
    STUB_ENTER();
    STUB_CONTEXT();
    STUB_CHECK(from && as<Stream>(stream, kStream), kInvalidValue);
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
    STUB_CONTEXT();
    STUB_CHECK(to && as<Stream>(stream, kStream), kInvalidValue);
    STUB_CHECK(stub::on_device(from, bytes), kInvalidValue);
    stub::enqueue(stream, [=] { memcpy(to, from, bytes); });
    return kSuccess;
}

STUB_EXPORT int cuMemcpyDtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
    STUB_ENTER();
    STUB_CONTEXT();
    STUB_CHECK(as<Stream>(stream, kStream), kInvalidValue);
    STUB_CHECK(stub::on_device(to, bytes) && stub::on_device(from, bytes), kInvalidValue);
    stub::enqueue(stream, [=] { memcpy(to, from, bytes); });
    return kSuccess;
}

STUB_EXPORT int cuMemsetD8Async(void* to, unsigned char value, size_t bytes, void* stream) {
    STUB_ENTER();
    STUB_CONTEXT();
    STUB_CHECK(as<Stream>(stream, kStream), kInvalidValue);
    STUB_CHECK(stub::on_device(to, bytes), kInvalidValue);
    stub::enqueue(stream, [=] { memset(to, value, bytes); });
    return kSuccess;
}
