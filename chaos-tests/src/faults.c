// Stands between a process and the C library (LD_PRELOAD) and does what disks and clocks do when they fail: a disk that takes
// so many bytes and then no more (ENOSPC), an fsync that fails (EIO), a wall clock that has stepped.
//
// What is to fail stands in a file that whoever started the process writes and this maps: see faults.rs. Pipes and sockets
// are never touched, nor the monotonic clock.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    int64_t clock_us; // what the wall clock is ahead
    int64_t room;     // bytes that still fit; below 0: as many as there are
    int64_t sync;     // not 0: every fsync fails
};

static struct control nothing = {0, -1, 0};
static struct control *control = &nothing;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SOJOURN_CHAOS_FAULTS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED) control = map;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int is_file(int fd) {
    struct stat is;
    return fstat(fd, &is) == 0 && S_ISREG(is.st_mode);
}

// How many of so many bytes fit; what fits is taken.
static size_t fits(int fd, size_t wanted) {
    if (__atomic_load_n(&control->room, __ATOMIC_RELAXED) < 0 || !is_file(fd)) return wanted;
    int64_t room = __atomic_load_n(&control->room, __ATOMIC_RELAXED);
    for (;;) {
        if (room < 0) return wanted;
        size_t part = (uint64_t)room < wanted ? (size_t)room : wanted;
        if (__atomic_compare_exchange_n(&control->room, &room, room - (int64_t)part, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return part;
    }
}

#define FULL(fd, wanted) \
    size_t part = fits(fd, wanted); \
    if (part == 0 && (wanted) > 0) { errno = ENOSPC; return -1; }

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(write);
    FULL(fd, count)
    return real(fd, bytes, part);
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    REAL(pwrite);
    FULL(fd, count)
    return real(fd, bytes, part, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    REAL(pwrite64);
    FULL(fd, count)
    return real(fd, bytes, part, at);
}

static size_t sum(const struct iovec *parts, int count) {
    size_t all = 0;
    for (int n = 0; n < count; n++) all += parts[n].iov_len;
    return all;
}
// of several pieces, all or none: a short write is answered by writing the rest, which does not fit
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    size_t all = sum(parts, count);
    FULL(fd, all)
    if (part < all) { errno = ENOSPC; return -1; }
    return real(fd, parts, count);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    REAL(pwritev);
    size_t all = sum(parts, count);
    FULL(fd, all)
    if (part < all) { errno = ENOSPC; return -1; }
    return real(fd, parts, count, at);
}
int fallocate(int fd, int mode, off_t at, off_t count) {
    REAL(fallocate);
    if (__atomic_load_n(&control->room, __ATOMIC_RELAXED) >= 0) { errno = ENOSPC; return -1; }
    return real(fd, mode, at, count);
}
int fallocate64(int fd, int mode, off64_t at, off64_t count) {
    REAL(fallocate64);
    if (__atomic_load_n(&control->room, __ATOMIC_RELAXED) >= 0) { errno = ENOSPC; return -1; }
    return real(fd, mode, at, count);
}

#define SYNC(fd) \
    if (__atomic_load_n(&control->sync, __ATOMIC_RELAXED) && is_file(fd)) { errno = EIO; return -1; }

int fsync(int fd) {
    REAL(fsync);
    SYNC(fd)
    return real(fd);
}
int fdatasync(int fd) {
    REAL(fdatasync);
    SYNC(fd)
    return real(fd);
}
int sync_file_range(int fd, off64_t at, off64_t count, unsigned int flags) {
    REAL(sync_file_range);
    SYNC(fd)
    return real(fd, at, count, flags);
}

int clock_gettime(clockid_t which, struct timespec *now) {
    REAL(clock_gettime);
    int told = real(which, now);
    int64_t ahead = __atomic_load_n(&control->clock_us, __ATOMIC_RELAXED);
    if (told == 0 && ahead != 0 && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) {
        int64_t ns = now->tv_nsec + (ahead % 1000000) * 1000;
        now->tv_sec += ahead / 1000000 + (ns >= 1000000000) - (ns < 0);
        now->tv_nsec = ns >= 1000000000 ? ns - 1000000000 : ns < 0 ? ns + 1000000000 : ns;
    }
    return told;
}
int gettimeofday(struct timeval *now, void *zone) {
    (void)zone;
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
