// A network link with a delay, for kernels without netem: joins a device in each of two network namespaces, and holds every packet for as
// long as a link of that rate and length would.
//
//   gcc -O2 -o link link.c
//   link NAMESPACE NAMESPACE DEVICE MILLISECONDS MBIT      the namespaces as ip netns names them; runs until it is killed; needs root
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

// As long as tc's bucket filter in two-hosts.sh lets a packet wait before it drops it.
#define LONGEST_WAIT 100000000
#define LONGEST_PACKET 65536

struct packet {
    struct packet* next;
    int64_t due; // nanoseconds
    size_t length;
    char bytes[];
};

// One direction.
struct way {
    int from, to;
    struct packet *first, **end;
    int64_t free; // when the link has sent what it was given so far
};

static void fail(const char* what) {
    fprintf(stderr, "link: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static int device(const char* space, const char* name) {
    char path[256];
    snprintf(path, sizeof(path), "/run/netns/%s", space);
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || setns(file, CLONE_NEWNET) != 0) {
        fail(path);
    }
    close(file);
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    const int end = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (end < 0 || ioctl(end, TUNSETIFF, &request) != 0) {
        fail("/dev/net/tun");
    }
    return end;
}

// What has come in, with the time at which it is to go out.
static void take(struct way* way, int64_t delay, double nanoseconds_per_byte) {
    static char bytes[LONGEST_PACKET];
    for (ssize_t length; (length = read(way->from, bytes, sizeof(bytes))) > 0;) {
        const int64_t time = now(), begin = way->free > time ? way->free : time;
        if (begin - time > LONGEST_WAIT) {
            continue;
        }
        way->free = begin + (int64_t)((double)length * nanoseconds_per_byte);
        struct packet* packet = malloc(sizeof(struct packet) + (size_t)length);
        if (packet == NULL) {
            fail("memory");
        }
        *packet = (struct packet){.due = way->free + delay, .length = (size_t)length};
        memcpy(packet->bytes, bytes, packet->length);
        *way->end = packet;
        way->end = &packet->next;
    }
}

// Sends what is due; when the next packet is.
static int64_t give(struct way* way) {
    while (way->first != NULL && way->first->due <= now()) {
        struct packet* packet = way->first;
        // Where the device is down, as after a cut, the packet is lost.
        (void)!write(way->to, packet->bytes, packet->length);
        way->first = packet->next;
        way->end = way->first == NULL ? &way->first : way->end;
        free(packet);
    }
    return way->first == NULL ? INT64_MAX : way->first->due;
}

int main(int count, char** words) {
    if (count != 6 || atof(words[5]) <= 0) {
        fprintf(stderr, "link NAMESPACE NAMESPACE DEVICE MILLISECONDS MBIT\n");
        return 2;
    }
    const int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    const int a = device(words[1], words[3]), b = device(words[2], words[3]);
    // Whoever ends all processes of the two hosts does not mean the link.
    if (home < 0 || setns(home, CLONE_NEWNET) != 0) {
        fail("/proc/self/ns/net");
    }
    const int64_t delay = (int64_t)(atof(words[4]) * 1e6);
    const double nanoseconds_per_byte = 8e3 / atof(words[5]);
    // The ranks have all processors to themselves, and a link waits for none.
    sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1});
    prctl(PR_SET_TIMERSLACK, 1);
    struct way ways[2] = {{.from = a, .to = b}, {.from = b, .to = a}};
    ways[0].end = &ways[0].first;
    ways[1].end = &ways[1].first;
    for (;;) {
        int64_t next = INT64_MAX;
        for (int i = 0; i < 2; i++) {
            take(&ways[i], delay, nanoseconds_per_byte);
            const int64_t due = give(&ways[i]);
            next = due < next ? due : next;
        }
        struct pollfd ends[2] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
        const int64_t wait = next == INT64_MAX ? 0 : next - now();
        const struct timespec time = {.tv_sec = wait > 0 ? wait / 1000000000 : 0, .tv_nsec = wait > 0 ? wait % 1000000000 : 0};
        ppoll(ends, 2, next == INT64_MAX ? NULL : &time, NULL);
    }
}
