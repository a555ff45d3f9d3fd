#include "emulator.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "stub.hpp"

#if !defined(__x86_64__)
#error "The fibers of the CUDA stub are written for x86-64; build with -DHBN_CUDA_STUB=OFF elsewhere."
#endif

// Saves the callee-saved registers on the current stack, and goes on where `to` was saved.
extern "C" void hbn_stub_switch(void** from, void* to);
asm(".text\n.type hbn_stub_switch,@function\nhbn_stub_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");

namespace emulator {

Dim thread_index, block_index, block_dim, grid_dim;
float* dynamic_shared;

namespace {

constexpr size_t kStackBytes = 128 << 10;

struct Fiber {
    void* stack = nullptr;
    bool done = false;
};

std::vector<Fiber*> fibers;
Fiber* current;
void* scheduler;
const std::function<void()>* task;

void fiber_main() {
    for (;;) {
        (*task)();
        current->done = true;
        hbn_stub_switch(&current->stack, scheduler);
    }
}

Fiber* make_fiber() {
    char* memory =
        static_cast<char*>(mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    Fiber* fiber = new Fiber;
    // The stacks' tops lie at different places of a page, or all fibers would share a few sets of the cache.
    memory -= fibers.size() % 64 * 576;
    // Six registers, the address that ret takes, and a slot that makes the stack aligned as at a function's entry.
    void** top = reinterpret_cast<void**>(memory + kStackBytes) - 2;
    *top = reinterpret_cast<void*>(fiber_main);
    fiber->stack = top - 6;
    return fiber;
}

void resume(Fiber* fiber) {
    current = fiber;
    hbn_stub_switch(&scheduler, fiber->stack);
}

} // namespace

void barrier() {
    hbn_stub_switch(&current->stack, scheduler);
}

void run(const std::function<void()>& body, Dim grid, Dim block, unsigned shared_bytes) {
    unsigned threads = block.x * block.y * block.z;
    while (fibers.size() < threads)
        fibers.push_back(make_fiber());
    std::vector<float> shared(shared_bytes / sizeof(float) + 1);
    dynamic_shared = shared.data();
    block_dim = block;
    grid_dim = grid;
    task = &body;

    // A correct kernel does not notice the order; "thread_order" 1 turns it round.
    std::vector<unsigned> order(threads);
    std::iota(order.begin(), order.end(), 0u);
    bool reverse = stub::setting("thread_order", 0) != 0;
    if (reverse)
        std::reverse(order.begin(), order.end());
    size_t blocks = static_cast<size_t>(grid.x) * grid.y * grid.z;
    for (size_t n = 0; n < blocks; ++n) {
        size_t b = reverse ? blocks - 1 - n : n;
        block_index = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                       static_cast<unsigned>(b / grid.x / grid.y)};
        std::fill(shared.begin(), shared.end(), NAN);
        for (unsigned t = 0; t < threads; ++t)
            fibers[t]->done = false;
        for (unsigned alive = threads; alive > 0;) {
            unsigned ended = 0;
            for (unsigned t : order) {
                if (fibers[t]->done)
                    continue;
                thread_index = {t % block.x, t / block.x % block.y, t / block.x / block.y};
                resume(fibers[t]);
                ended += fibers[t]->done;
            }
            if (ended != 0 && ended != alive)
                stub::problem("a kernel", "some threads of a block ended while others waited at a barrier");
            alive -= ended;
        }
    }
    dynamic_shared = nullptr;
}

} // namespace emulator
