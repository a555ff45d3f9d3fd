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
    bool pausing = false; // it waits for another block, not at a barrier
};

// Rounds in which every thread that can go on only waits, until nobody is believed to come.
constexpr int kPatience = 1000;

std::vector<Fiber*> fibers;
bool together, hangs;
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

Dim block_of(size_t b, Dim grid) {
    return {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y), static_cast<unsigned>(b / grid.x / grid.y)};
}

Dim thread_of(unsigned t, Dim block) {
    return {t % block.x, t / block.x % block.y, t / block.x / block.y};
}

// A correct kernel does not notice the order; "thread_order" 1 turns it round.
template <class T> std::vector<T> in_order(T count) {
    std::vector<T> order(count);
    std::iota(order.begin(), order.end(), T{0});
    if (stub::setting("thread_order", 0) != 0)
        std::reverse(order.begin(), order.end());
    return order;
}

void begin(const std::function<void()>& body, Dim grid, Dim block, size_t threads) {
    while (fibers.size() < threads)
        fibers.push_back(make_fiber());
    block_dim = block;
    grid_dim = grid;
    task = &body;
}

} // namespace

void barrier() {
    hbn_stub_switch(&current->stack, scheduler);
}

void pause() {
    // Where blocks run one after the other, the one that is waited for has ended already or does not begin: the device would hang.
    if (!together) {
        stub::problem("a kernel", "waits for another block, which only a cooperative launch promises to run");
        hangs = true;
        barrier();
    }
    current->pausing = true;
    barrier();
    current->pausing = false;
}

void run_together(const std::function<void()>& body, Dim grid, Dim block, unsigned shared_bytes) {
    size_t threads = static_cast<size_t>(block.x) * block.y * block.z, blocks = static_cast<size_t>(grid.x) * grid.y * grid.z;
    begin(body, grid, block, blocks * threads);
    size_t floats = shared_bytes / sizeof(float) + 1;
    std::vector<float> shared(blocks * floats, NAN);
    std::vector<size_t> alive(blocks, threads);
    std::vector<char> waiting(blocks * threads, 0);
    std::vector<size_t> block_order = in_order(blocks), order = in_order(threads);
    for (size_t f = 0; f < blocks * threads; ++f)
        fibers[f]->done = false;
    together = true;
    size_t left = blocks;
    for (int idle = 0; left > 0 && idle < kPatience;) {
        bool progress = false;
        for (size_t b : block_order) {
            if (alive[b] == 0)
                continue;
            block_index = block_of(b, grid);
            dynamic_shared = shared.data() + b * floats;
            size_t at_barrier = 0, before = alive[b];
            for (size_t t : order) {
                size_t f = b * threads + t;
                if (!fibers[f]->done && !waiting[f]) {
                    thread_index = thread_of(static_cast<unsigned>(t), block);
                    resume(fibers[f]);
                    waiting[f] = !fibers[f]->done && !fibers[f]->pausing;
                    alive[b] -= fibers[f]->done;
                    progress |= !fibers[f]->pausing;
                }
                at_barrier += waiting[f];
            }
            if (at_barrier != 0 && alive[b] != before)
                stub::problem("a kernel", "some threads of a block ended while others waited at a barrier");
            if (at_barrier == alive[b])
                std::fill_n(waiting.begin() + static_cast<std::ptrdiff_t>(b * threads), threads, 0);
            left -= alive[b] == 0;
        }
        idle = progress ? 0 : idle + 1;
    }
    if (left > 0) {
        stub::problem("a kernel", "waits for another block that never comes");
        fibers.clear();
    }
    together = false;
    dynamic_shared = nullptr;
}

void run(const std::function<void()>& body, Dim grid, Dim block, unsigned shared_bytes) {
    unsigned threads = block.x * block.y * block.z;
    begin(body, grid, block, threads);
    std::vector<float> shared(shared_bytes / sizeof(float) + 1);
    dynamic_shared = shared.data();
    std::vector<unsigned> order = in_order(threads);
    for (size_t b : in_order(static_cast<size_t>(grid.x) * grid.y * grid.z)) {
        block_index = block_of(b, grid);
        std::fill(shared.begin(), shared.end(), NAN);
        for (unsigned t = 0; t < threads; ++t)
            fibers[t]->done = false;
        for (unsigned alive = threads; alive > 0;) {
            unsigned ended = 0;
            for (unsigned t : order) {
                if (fibers[t]->done)
                    continue;
                thread_index = thread_of(t, block);
                resume(fibers[t]);
                ended += fibers[t]->done;
                if (hangs) {
                    hangs = false;
                    fibers.clear(); // they stand in the middle of it
                    dynamic_shared = nullptr;
                    return;
                }
            }
            if (ended != 0 && ended != alive)
                stub::problem("a kernel", "some threads of a block ended while others waited at a barrier");
            alive -= ended;
        }
    }
    dynamic_shared = nullptr;
}

} // namespace emulator
