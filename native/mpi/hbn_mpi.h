/*
 * hbn_mpi.h: the whole C ABI of libhbn_mpi, which connects processes ("ranks") that train one network together. Compiles as C11 and C++17.
 *
 * A library of its own: handles differ between implementations of MPI, so it is compiled against the mpi.h there is, and libhbn knows
 * nothing of it. A program that runs alone never opens it.
 *
 * One thread calls everything here, the one that called hbn_mpi_init (MPI_THREAD_FUNNELED). Nothing waits: an exchange is started, and
 * hbn_mpi_progress moves it on until it is done, so that several can be under way at once and a rank that does not answer can be named.
 *
 * Exchanges are made of point-to-point messages, not of MPI's collectives: those may add in an order that depends on who arrives first, and
 * say nothing of whom they wait for. An average is a reduce-scatter (every rank receives its part of everybody's values and adds the parts
 * in the order of the ranks, in double) and an all-gather of the results: every rank gets the same bits, and the same ones in every run.
 */
#ifndef HBN_MPI_H
#define HBN_MPI_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define HBN_MPI_NOEXCEPT noexcept
#else
#define HBN_MPI_NOEXCEPT
#endif

#define HBN_MPI_API __attribute__((visibility("default")))

/* Raised whenever a signature or a struct of this file changes. */
#define HBN_MPI_ABI_VERSION 2

typedef int32_t hbn_mpi_status;
enum { HBN_MPI_OK = 0, HBN_MPI_INVALID_ARGUMENT = 1, HBN_MPI_OUT_OF_MEMORY = 3, HBN_MPI_RUNTIME = 4 };

typedef struct hbn_mpi_exchange hbn_mpi_exchange;

typedef struct hbn_mpi_info {
    int32_t struct_size;
    int32_t rank, size;
    int32_t local_rank, local_size; /* among the ranks that share this machine's memory */
    int32_t reserved;
    char library[256]; /* MPI_Get_library_version, its first line */
} hbn_mpi_info;

/* Values that lie together, at most 2^31 - 1 of them. */
typedef struct hbn_mpi_piece {
    void* address;
    int64_t count;
} hbn_mpi_piece;

/* Values of the last two are rounded to bfloat16 before they travel, to the nearest, twice: each rank's own, and their mean. */
enum { HBN_MPI_FLOAT32 = 0, HBN_MPI_FLOAT64 = 1, HBN_MPI_FLOAT32_AS_BFLOAT16 = 2, HBN_MPI_FLOAT64_AS_BFLOAT16 = 3 };

/* Returns HBN_MPI_ABI_VERSION of the library that was loaded (not a status). */
HBN_MPI_API int32_t hbn_mpi_abi_version(void) HBN_MPI_NOEXCEPT;

/* Copies the text of this thread's last failure, NUL-terminated and cut to capacity; returns its full length without NUL (not a status). */
HBN_MPI_API int32_t hbn_mpi_last_error(char* text, int32_t capacity) HBN_MPI_NOEXCEPT;

/* Begins; once per process. struct_size is set by the caller. */
HBN_MPI_API hbn_mpi_status hbn_mpi_init(hbn_mpi_info* info) HBN_MPI_NOEXCEPT;

/* Ends, after all exchanges have been destroyed; waits for the other ranks to do so too. */
HBN_MPI_API hbn_mpi_status hbn_mpi_finalize(void) HBN_MPI_NOEXCEPT;

/* Ends all ranks at once, also those that hang; code is what the launcher reports. Does not return where MPI works. From any thread. */
HBN_MPI_API hbn_mpi_status hbn_mpi_abort(int32_t code) HBN_MPI_NOEXCEPT;

/*
 * An exchange that replaces the values of all pieces by their mean over the ranks. Every rank has pieces of the same lengths. tag, 0 to
 * 16383, is the same on all ranks and no other exchange's that exists at the time. The pieces are read from start on and written before
 * done.
 */
HBN_MPI_API hbn_mpi_status hbn_mpi_average_create(const hbn_mpi_piece* pieces, int32_t count, int32_t type, int32_t tag,
                                                  hbn_mpi_exchange** exchange) HBN_MPI_NOEXCEPT;

/*
 * An exchange that brings bytes[r] bytes of each rank r to rank `root`, or to all with root -1, one after the other. bytes has an element
 * per rank, the same on all of them. With root -1 it may be an exchange of some: -1 stands for a rank that takes no part, which may have an
 * exchange with others meanwhile.
 */
HBN_MPI_API hbn_mpi_status hbn_mpi_gather_create(const int64_t* bytes, int32_t root, int32_t tag,
                                                 hbn_mpi_exchange** exchange) HBN_MPI_NOEXCEPT;

/* Starts an exchange, again and again. mine and all belong to a gather (null for an average) and stay the caller's until it is done. */
HBN_MPI_API hbn_mpi_status hbn_mpi_start(hbn_mpi_exchange* exchange, const void* mine, void* all) HBN_MPI_NOEXCEPT;

/* Moves a started exchange on; done becomes 1 when this rank has all it was to get and its own values may be changed. */
HBN_MPI_API hbn_mpi_status hbn_mpi_progress(hbn_mpi_exchange* exchange, int32_t* done) HBN_MPI_NOEXCEPT;

/* Sets waiting[r] to 1 for each rank r whose values are missing, or that has not taken ours. */
HBN_MPI_API hbn_mpi_status hbn_mpi_waiting_for(hbn_mpi_exchange* exchange, int32_t* waiting) HBN_MPI_NOEXCEPT;

/* Gives the processor to others for so many microseconds; 0 for a moment. Not a status. */
HBN_MPI_API void hbn_mpi_pause(int32_t microseconds) HBN_MPI_NOEXCEPT;

/* Frees an exchange that is not under way. NULL is accepted. */
HBN_MPI_API void hbn_mpi_destroy(hbn_mpi_exchange* exchange) HBN_MPI_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
