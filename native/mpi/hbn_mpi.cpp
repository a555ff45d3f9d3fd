#include "hbn_mpi.h"

#include <dlfcn.h>
#include <mpi.h>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace {

thread_local std::string last_error;

int rank = 0, size = 1;
MPI_Comm world = MPI_COMM_NULL; // our own: its messages meet no others, and its errors come back to us

void check(int code, const char* call) {
    if (code == MPI_SUCCESS) {
        return;
    }
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    throw std::runtime_error(std::string(call) + ": " + std::string(text, static_cast<size_t>(length)));
}

void require(bool holds, const char* text) {
    if (!holds) {
        throw std::invalid_argument(text);
    }
}

// The border: exceptions become a status and a message.
template <typename F> hbn_mpi_status guard(F body) noexcept {
    try {
        try {
            body();
            return HBN_MPI_OK;
        } catch (const std::invalid_argument& e) {
            last_error = e.what();
            return HBN_MPI_INVALID_ARGUMENT;
        } catch (const std::bad_alloc&) {
            last_error = "out of memory";
            return HBN_MPI_OUT_OF_MEMORY;
        } catch (const std::exception& e) {
            last_error = e.what();
            return HBN_MPI_RUNTIME;
        }
    } catch (...) { // the message itself found no memory
        return HBN_MPI_RUNTIME;
    }
}

} // namespace

// Messages under way. A phase is over when all its messages are.
struct hbn_mpi_exchange {
    virtual ~hbn_mpi_exchange() = default;
    virtual void start(const void* mine, void* all) = 0;
    // The phase's messages are done: begins the next and returns true, or ends.
    virtual bool next() = 0;

    bool progress() {
        require(active, "the exchange has not been started");
        for (;;) {
            int flag = 1;
            if (!requests.empty()) {
                check(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &flag, MPI_STATUSES_IGNORE), "MPI_Testall");
            }
            if (flag == 0) {
                return false;
            }
            requests.clear();
            peers.clear();
            if (!next()) {
                active = false;
                return true;
            }
        }
    }

    void waiting_for(int32_t* waiting) {
        std::fill(waiting, waiting + size, 0);
        for (size_t i = 0; i < requests.size(); i++) {
            int flag = 1;
            if (requests[i] != MPI_REQUEST_NULL) {
                check(MPI_Request_get_status(requests[i], &flag, MPI_STATUS_IGNORE), "MPI_Request_get_status");
            }
            waiting[peers[i]] |= flag == 0;
        }
    }

    bool active = false;

protected:
    void send(const void* data, int64_t count, MPI_Datatype type, int to, int tag) {
        if (count > 0) {
            MPI_Request request;
            check(MPI_Isend(data, static_cast<int>(count), type, to, tag, world, &request), "MPI_Isend");
            requests.push_back(request);
            peers.push_back(to);
        }
    }

    void receive(void* data, int64_t count, MPI_Datatype type, int from, int tag) {
        if (count > 0) {
            MPI_Request request;
            check(MPI_Irecv(data, static_cast<int>(count), type, from, tag, world, &request), "MPI_Irecv");
            requests.push_back(request);
            peers.push_back(from);
        }
    }

private:
    std::vector<MPI_Request> requests;
    std::vector<int> peers;
};

namespace {

// Ranks exchange with their neighbours first, each with another one at a time, so that not all speak to rank 0 at once.
template <typename F> void for_each_peer(F body) {
    for (int distance = 1; distance < size; distance++) {
        body((rank + distance) % size, (rank + size - distance) % size);
    }
}

// How a value travels.
struct Bfloat16 {
    uint16_t bits;

    Bfloat16() = default;
    explicit Bfloat16(double value) {
        // Through a float, to which a double is rounded first: that moves a tie now and then, by half a unit.
        const float single = static_cast<float>(value);
        uint32_t all = 0;
        std::memcpy(&all, &single, sizeof(all));
        bits = static_cast<uint16_t>((all & 0x7FFFFFFF) > 0x7F800000 ? (all >> 16) | 0x40 : (all + 0x7FFF + ((all >> 16) & 1)) >> 16);
    }
    explicit operator double() const {
        const uint32_t all = static_cast<uint32_t>(bits) << 16;
        float single = 0;
        std::memcpy(&single, &all, sizeof(single));
        return static_cast<double>(single);
    }
};

// Values of type T that travel as W.
template <typename T, typename W> struct Average final : hbn_mpi_exchange {
    Average(std::vector<hbn_mpi_piece> p, MPI_Datatype t, int first_tag) : pieces(std::move(p)), type(t), tag(first_tag) {
        int64_t count = 0;
        for (const hbn_mpi_piece& piece : pieces) {
            require(piece.address != nullptr && piece.count >= 0, "a piece has no address or a negative length");
            count += piece.count;
        }
        require(count <= INT_MAX, "an average of more than 2^31 - 1 values");
        values.resize(static_cast<size_t>(count));
        parts.resize(static_cast<size_t>(size) * static_cast<size_t>(length(rank)));
    }

    void start(const void*, void*) override {
        W* to = values.data();
        for (const hbn_mpi_piece& piece : pieces) {
            if constexpr (std::is_same_v<T, W>) {
                std::memcpy(to, piece.address, static_cast<size_t>(piece.count) * sizeof(T));
            } else {
                std::transform(static_cast<const T*>(piece.address), static_cast<const T*>(piece.address) + piece.count, to,
                               [](T value) { return W(static_cast<double>(value)); });
            }
            to += piece.count;
        }
        reduced = false;
        for_each_peer([&](int to_rank, int from) {
            receive(parts.data() + static_cast<int64_t>(from) * length(rank), length(rank), type, from, tag);
            send(values.data() + begin(to_rank), length(to_rank), type, to_rank, tag);
        });
    }

    bool next() override {
        if (!reduced) {
            reduced = true;
            reduce();
            for_each_peer([&](int to_rank, int from) {
                receive(values.data() + begin(from), length(from), type, from, tag + 1);
                send(values.data() + begin(rank), length(rank), type, to_rank, tag + 1);
            });
            return true;
        }
        const W* from = values.data();
        for (const hbn_mpi_piece& piece : pieces) {
            if constexpr (std::is_same_v<T, W>) {
                std::memcpy(piece.address, from, static_cast<size_t>(piece.count) * sizeof(T));
            } else {
                std::transform(from, from + piece.count, static_cast<T*>(piece.address),
                               [](W value) { return static_cast<T>(static_cast<double>(value)); });
            }
            from += piece.count;
        }
        return false;
    }

private:
    std::vector<hbn_mpi_piece> pieces;
    MPI_Datatype type;
    int tag;
    bool reduced = false;
    std::vector<W> values, parts; // everything in a row; this rank's part of everybody's

    // Rank r adds the values from begin(r) on.
    int64_t begin(int r) const { return static_cast<int64_t>(values.size()) * r / size; }
    int64_t length(int r) const { return begin(r + 1) - begin(r); }

    void reduce() {
        W* own = values.data() + begin(rank);
        const int64_t count = length(rank);
        constexpr int64_t kBlock = 512;
        double sums[kBlock];
        for (int64_t at = 0; at < count; at += kBlock) {
            const int64_t n = std::min(kBlock, count - at);
            std::fill(sums, sums + n, 0.0);
            for (int r = 0; r < size; r++) {
                const W* from = (r == rank ? own : parts.data() + r * count) + at;
                for (int64_t i = 0; i < n; i++) {
                    sums[i] += static_cast<double>(from[i]);
                }
            }
            for (int64_t i = 0; i < n; i++) {
                own[at + i] = static_cast<W>(sums[i] / size);
            }
        }
    }
};

struct Gather final : hbn_mpi_exchange {
    Gather(std::vector<int64_t> b, int r, int t) : bytes(std::move(b)), root(r), tag(t) {
        for (const int64_t n : bytes) {
            require((n >= 0 || (n == -1 && root < 0)) && n <= INT_MAX, "a gather of a negative number of bytes, or of more than 2^31 - 1");
        }
        require(bytes[static_cast<size_t>(rank)] >= 0, "a gather without this rank");
    }

    void start(const void* mine, void* all) override {
        require(mine != nullptr || bytes[static_cast<size_t>(rank)] == 0, "mine is null");
        require(all != nullptr || (root >= 0 && root != rank), "all is null");
        if (receives(rank)) {
            int64_t offset = 0;
            for (int r = 0; r < size; r++) {
                char* to = static_cast<char*>(all) + offset;
                const int64_t n = bytes[static_cast<size_t>(r)];
                if (r != rank) {
                    receive(to, n, MPI_BYTE, r, tag);
                } else if (n > 0) {
                    std::memcpy(to, mine, static_cast<size_t>(n));
                }
                offset += std::max<int64_t>(n, 0);
            }
        }
        for_each_peer([&](int to, int) {
            if (receives(to)) {
                send(mine, bytes[static_cast<size_t>(rank)], MPI_BYTE, to, tag);
            }
        });
    }

    bool next() override { return false; }

private:
    std::vector<int64_t> bytes;
    int root, tag;

    bool receives(int r) const { return root < 0 ? bytes[static_cast<size_t>(r)] >= 0 : root == r; }
};

void initialize(hbn_mpi_info* info) {
    require(info != nullptr && info->struct_size == static_cast<int32_t>(sizeof(hbn_mpi_info)), "struct_size");
    require(world == MPI_COMM_NULL, "MPI has been initialized");
    // The signals that Open MPI would print a stack for are the runtime's own: .NET turns a segmentation fault into an exception.
    setenv("OMPI_MCA_opal_signal", "", 0);
    // Open MPI's plug-ins look for its symbols among the global ones, and we were loaded as a plug-in ourselves.
    Dl_info self;
    if (dladdr(reinterpret_cast<void*>(&MPI_Init_thread), &self) != 0) {
        dlopen(self.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
    }
    int given = 0;
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &given), "MPI_Init_thread");
    check(MPI_Comm_dup(MPI_COMM_WORLD, &world), "MPI_Comm_dup");
    check(MPI_Comm_set_errhandler(world, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check(MPI_Comm_rank(world, &rank), "MPI_Comm_rank");
    check(MPI_Comm_size(world, &size), "MPI_Comm_size");
    MPI_Comm node = MPI_COMM_NULL;
    check(MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &node), "MPI_Comm_split_type");
    info->rank = rank;
    info->size = size;
    check(MPI_Comm_rank(node, &info->local_rank), "MPI_Comm_rank");
    check(MPI_Comm_size(node, &info->local_size), "MPI_Comm_size");
    check(MPI_Comm_free(&node), "MPI_Comm_free");
    if (given < MPI_THREAD_FUNNELED) {
        throw std::runtime_error("this MPI was built for programs of one thread (MPI_THREAD_SINGLE)");
    }
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    check(MPI_Get_library_version(version, &length), "MPI_Get_library_version");
    std::string line = std::string(version, strcspn(version, "\n,"));
    // MPICH's line is a table's: "MPICH Version:", a tab, the number.
    const size_t colon = line.find(":\t");
    if (colon != std::string::npos) {
        line.replace(colon, 2, " ");
    }
    std::memset(info->library, 0, sizeof(info->library));
    std::memcpy(info->library, line.data(), std::min(line.size(), sizeof(info->library) - 1));
}

} // namespace

int32_t hbn_mpi_abi_version(void) noexcept {
    return HBN_MPI_ABI_VERSION;
}

int32_t hbn_mpi_last_error(char* text, int32_t capacity) noexcept {
    if (text != nullptr && capacity > 0) {
        const size_t n = std::min(last_error.size(), static_cast<size_t>(capacity) - 1);
        std::memcpy(text, last_error.data(), n);
        text[n] = '\0';
    }
    return static_cast<int32_t>(last_error.size());
}

hbn_mpi_status hbn_mpi_init(hbn_mpi_info* info) noexcept {
    return guard([&] { initialize(info); });
}

hbn_mpi_status hbn_mpi_finalize(void) noexcept {
    return guard([&] {
        require(world != MPI_COMM_NULL, "MPI has not been initialized");
        check(MPI_Comm_free(&world), "MPI_Comm_free");
        check(MPI_Finalize(), "MPI_Finalize");
    });
}

hbn_mpi_status hbn_mpi_abort(int32_t code) noexcept {
    return guard([&] { check(MPI_Abort(MPI_COMM_WORLD, code), "MPI_Abort"); });
}

hbn_mpi_status hbn_mpi_average_create(const hbn_mpi_piece* pieces, int32_t count, int32_t type, int32_t tag,
                                      hbn_mpi_exchange** exchange) noexcept {
    return guard([&] {
        require(world != MPI_COMM_NULL, "MPI has not been initialized");
        require(pieces != nullptr && count > 0 && exchange != nullptr && tag >= 0 && tag <= 16383, "pieces, count, tag or exchange");
        std::vector<hbn_mpi_piece> all(pieces, pieces + count);
        if (type == HBN_MPI_FLOAT32) {
            *exchange = new Average<float, float>(std::move(all), MPI_FLOAT, 2 * tag);
        } else if (type == HBN_MPI_FLOAT64) {
            *exchange = new Average<double, double>(std::move(all), MPI_DOUBLE, 2 * tag);
        } else if (type == HBN_MPI_FLOAT32_AS_BFLOAT16) {
            *exchange = new Average<float, Bfloat16>(std::move(all), MPI_UINT16_T, 2 * tag);
        } else {
            require(type == HBN_MPI_FLOAT64_AS_BFLOAT16, "type");
            *exchange = new Average<double, Bfloat16>(std::move(all), MPI_UINT16_T, 2 * tag);
        }
    });
}

hbn_mpi_status hbn_mpi_gather_create(const int64_t* bytes, int32_t root, int32_t tag, hbn_mpi_exchange** exchange) noexcept {
    return guard([&] {
        require(world != MPI_COMM_NULL, "MPI has not been initialized");
        require(bytes != nullptr && exchange != nullptr && root >= -1 && root < size && tag >= 0 && tag <= 16383,
                "bytes, root, tag or exchange");
        *exchange = new Gather(std::vector<int64_t>(bytes, bytes + size), root, 2 * tag);
    });
}

hbn_mpi_status hbn_mpi_start(hbn_mpi_exchange* exchange, const void* mine, void* all) noexcept {
    return guard([&] {
        require(exchange != nullptr && !exchange->active, "the exchange is null or under way");
        exchange->start(mine, all);
        exchange->active = true;
    });
}

hbn_mpi_status hbn_mpi_progress(hbn_mpi_exchange* exchange, int32_t* done) noexcept {
    return guard([&] {
        require(exchange != nullptr && done != nullptr, "exchange or done is null");
        *done = exchange->progress() ? 1 : 0;
    });
}

hbn_mpi_status hbn_mpi_waiting_for(hbn_mpi_exchange* exchange, int32_t* waiting) noexcept {
    return guard([&] {
        require(exchange != nullptr && waiting != nullptr, "exchange or waiting is null");
        exchange->waiting_for(waiting);
    });
}

void hbn_mpi_pause(int32_t microseconds) noexcept {
    if (microseconds <= 0) {
        sched_yield();
        return;
    }
    const timespec time{microseconds / 1000000, microseconds % 1000000 * 1000L};
    nanosleep(&time, nullptr);
}

void hbn_mpi_destroy(hbn_mpi_exchange* exchange) noexcept {
    delete exchange;
}
