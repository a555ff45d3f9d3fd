// libcuda.so.1: streams, events, and recorded steps.
#include <algorithm>
#include <chrono>

#include "driver.hpp"

using namespace driver;

namespace {

std::vector<Stream*> streams;

struct Graph : Object {
    std::vector<Work> work;
};

// What a recording does not allow makes it worthless.
int spoil(int status) {
    for (Stream* stream : streams) {
        if (stream->capture && stream->origin)
            stream->origin->spoilt = true;
    }
    return status;
}

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

} // namespace

void driver::advance(Stream* stream, const std::function<bool()>& done) {
    while (!stream->queue.empty() && !done()) {
        Item item = stream->queue.front();
        if (item.event && !sticky && item.event->reached < item.recording) {
            advance(item.event->stream, [&] { return item.event->reached >= item.recording; });
            if (item.event->reached < item.recording) {
                stub::problem("a stream", "waits for an event that is never reached");
                item.event->reached = item.recording;
            }
        }
        stream->queue.pop_front();
        if (item.work && !sticky)
            item.work();
    }
}

namespace stub {

bool capturing() {
    return std::any_of(streams.begin(), streams.end(), [](Stream* stream) { return stream->capture != nullptr; });
}

void enqueue(void* handle, std::function<void()> work) {
    Stream* stream = as<Stream>(handle, kStream);
    if (!stream)
        problem("work", "enqueued on something that is no stream of ours");
    else if (stream->capture) {
        // One after the other in the order of the calls, which is an order that the waits allow.
        stream->capture->push_back(std::move(work));
        stream->ahead = stream->origin != stream;
    } else
        stream->queue.push_back(Item{std::move(work), nullptr, 0});
}

bool is_stream(void* handle) {
    return as<Stream>(handle, kStream) != nullptr;
}

// A correct program does not notice which stream comes first; "stream_order" 1 turns it round.
void finish() {
    Access access;
    std::vector<Stream*> order = streams;
    if (setting("stream_order", 0))
        std::reverse(order.begin(), order.end());
    for (Stream* stream : order)
        advance(stream, [] { return false; });
}

} // namespace stub

STUB_EXPORT int cuStreamCreate(void** out, unsigned flags) {
    STUB_ENTER();
    STUB_CONTEXT();
    STUB_CHECK(out, kInvalidContext);
    STUB_CHECK(flags == 1 /* CU_STREAM_NON_BLOCKING: the legacy stream breaks captures */, kInvalidValue);
    Stream* stream = new Stream;
    stream->magic = kStream;
    streams.push_back(stream);
    *out = stream;
    return kSuccess;
}

STUB_EXPORT int cuStreamDestroy_v2(void* handle) {
    STUB_ENTER();
    STUB_CONTEXT();
    stub::finish();
    streams.erase(std::remove(streams.begin(), streams.end(), handle), streams.end());
    STUB_CHECK(stub::destroy<Stream>(handle, kStream), kInvalidHandle);
    return kSuccess;
}

STUB_EXPORT int cuStreamSynchronize(void* handle) {
    STUB_ENTER();
    STUB_CONTEXT();
    Stream* stream = as<Stream>(handle, kStream);
    STUB_CHECK(stream, kInvalidHandle);
    STUB_CHECK(!stub::capturing(), spoil(kCaptureUnsupported));
    stub::Access access;
    advance(stream, [] { return false; });
    return sticky;
}

STUB_EXPORT int cuStreamWaitEvent(void* handle, void* event_handle, unsigned flags) {
    STUB_ENTER();
    STUB_CONTEXT();
    Stream* stream = as<Stream>(handle, kStream);
    Event* event = as<Event>(event_handle, kEvent);
    STUB_CHECK(stream && event && flags == 0, kInvalidHandle);
    STUB_CHECK(event->recorded > 0, kInvalidValue);
    if (event->origin) {
        // A stream that waits for something recorded becomes part of the recording; the one where it began takes in what the other has
        // done.
        STUB_CHECK(event->origin->capture && (!stream->capture || stream->origin == event->origin), kCaptureIsolation);
        if (event->origin == stream)
            event->stream->ahead = false;
        stream->capture = event->origin->capture;
        stream->origin = event->origin;
        return kSuccess;
    }
    STUB_CHECK(!stream->capture, spoil(kCaptureIsolation));
    stream->queue.push_back(Item{nullptr, event, event->recorded});
    return kSuccess;
}

STUB_EXPORT int cuStreamBeginCapture_v2(void* handle, int mode) {
    STUB_ENTER();
    STUB_CONTEXT();
    Stream* stream = as<Stream>(handle, kStream);
    STUB_CHECK(stream && !stream->capture, kInvalidHandle);
    STUB_CHECK(mode == 1 /* CU_STREAM_CAPTURE_MODE_THREAD_LOCAL */, kInvalidValue);
    stream->capture = new std::vector<Work>;
    stream->origin = stream;
    return kSuccess;
}

STUB_EXPORT int cuStreamEndCapture(void* handle, void** out) {
    STUB_ENTER();
    Stream* stream = as<Stream>(handle, kStream);
    STUB_CHECK(stream && stream->capture && stream->origin == stream && out, kInvalidHandle);
    bool ahead = false;
    for (Stream* other : streams) {
        if (other != stream && other->origin == stream) {
            ahead |= other->ahead;
            other->capture = nullptr;
            other->origin = nullptr;
            other->ahead = false;
        }
    }
    stream->origin = nullptr;
    if (stream->spoilt) {
        stream->spoilt = false;
        delete stream->capture;
        stream->capture = nullptr;
        return kCaptureInvalidated;
    }
    if (ahead) {
        stub::problem(__func__, "a stream that the recording has forked to was not waited for");
        delete stream->capture;
        stream->capture = nullptr;
        return kCaptureUnjoined;
    }
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
    STUB_CONTEXT();
    STUB_CHECK(out && (flags == 0 || flags == 2 /* CU_EVENT_DISABLE_TIMING */), kInvalidValue);
    *out = new Event{{kEvent}, flags == 0, nullptr, nullptr, 0, 0, 0};
    return kSuccess;
}

STUB_EXPORT int cuEventRecord(void* handle, void* stream_handle) {
    STUB_ENTER();
    STUB_CONTEXT();
    Event* event = as<Event>(handle, kEvent);
    Stream* stream = as<Stream>(stream_handle, kStream);
    STUB_CHECK(event && stream, kInvalidHandle);
    event->stream = stream;
    event->origin = stream->origin;
    if (stream->capture) {
        event->recorded++;
        event->reached = event->recorded;
        return kSuccess;
    }
    long long recording = ++event->recorded;
    stub::enqueue(stream, [event, recording] {
        event->reached = recording;
        event->seconds = now();
    });
    return kSuccess;
}

STUB_EXPORT int cuEventSynchronize(void* handle) {
    STUB_ENTER();
    STUB_CONTEXT();
    Event* event = as<Event>(handle, kEvent);
    STUB_CHECK(event, kInvalidHandle);
    STUB_CHECK(!event->origin, spoil(kCapturedEvent));
    STUB_CHECK(!stub::capturing(), spoil(kCaptureUnsupported));
    stub::Access access;
    if (event->stream)
        advance(event->stream, [event] { return event->reached == event->recorded; });
    return sticky;
}

STUB_EXPORT int cuEventElapsedTime(float* milliseconds, void* start, void* end) {
    STUB_ENTER();
    Event *from = as<Event>(start, kEvent), *to = as<Event>(end, kEvent);
    STUB_CHECK(milliseconds && from && to && from->timing && to->timing && from->recorded && to->recorded, kInvalidHandle);
    STUB_CHECK(!from->origin && !to->origin, spoil(kCapturedEvent));
    if (from->reached < from->recorded || to->reached < to->recorded)
        return kNotReady;
    *milliseconds = std::max(1e-3f, static_cast<float>((to->seconds - from->seconds) * 1e3));
    return kSuccess;
}

STUB_EXPORT int cuEventDestroy_v2(void* handle) {
    STUB_ENTER();
    STUB_CONTEXT();
    stub::finish();
    STUB_CHECK(stub::destroy<Event>(handle, kEvent), kInvalidHandle);
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
    STUB_CONTEXT();
    Graph* graph = as<Graph>(handle, kExec);
    STUB_CHECK(graph && as<Stream>(stream, kStream), kInvalidHandle);
    for (Work& work : graph->work)
        stub::enqueue(stream, work);
    return kSuccess;
}

STUB_EXPORT int cuGraphExecDestroy(void* handle) {
    STUB_ENTER();
    stub::finish();
    STUB_CHECK(stub::destroy<Graph>(handle, kExec), kInvalidValue);
    return kSuccess;
}

STUB_EXPORT int cuGraphDestroy(void* handle) {
    STUB_ENTER();
    STUB_CHECK(stub::destroy<Graph>(handle, kGraph), kInvalidValue);
    return kSuccess;
}
