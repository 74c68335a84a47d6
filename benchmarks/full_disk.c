/* A disk that is full from, or at, the k-th call that writes: see faults.py.

   Preloaded with LD_PRELOAD, it reaches Python and the writers in C and C++ alike. Only
   files below one folder count. Nothing fails before full_disk_start. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[4096];
/* The number of calls so far, of those that need space, and of the one that fails. */
static long calls, needing, failing;
static int stays_full;
static char failed[4200]; /* what failed first */

void full_disk_start(const char *path, long number, int stays) {
    snprintf(folder, sizeof folder, "%s/", path);
    failed[0] = 0;
    calls = needing = 0;
    failing = number;
    stays_full = stays;
}

/* The calls that can fail, at once or on a disk that stays full. */
long full_disk_calls(int stays) { return stays ? needing : calls; }
const char *full_disk_failed(void) { return failed; }

static int is_below(const char *path) {
    char absolute[4096];
    if (!folder[0] || !path) return 0;
    if (path[0] != '/') {
        char cwd[2048];
        int saved = errno;
        if (!getcwd(cwd, sizeof cwd)) cwd[0] = 0;
        errno = saved;
        snprintf(absolute, sizeof absolute, "%s/%s", cwd, path);
        path = absolute;
    }
    return !strncmp(path, folder, strlen(folder));
}

static const char *path_of(int file) {
    static __thread char path[4096];
    char link[64];
    int saved = errno;
    ssize_t length;
    if (!folder[0]) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0) return NULL;
    path[length] = 0;
    return path;
}

/* Whether this call fails. A disk that stays full fails writes and new names only:
   0 for the calls that need no space. */
static int fails(const char *call, const char *path, int needs_space) {
    long number;
    if (!is_below(path)) return 0;
    if (needs_space) __atomic_add_fetch(&needing, 1, __ATOMIC_SEQ_CST);
    if (stays_full && !needs_space) return 0;
    number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (number != failing && !(stays_full && failing && number > failing)) return 0;
    if (!failed[0]) snprintf(failed, sizeof failed, "%s %s", call, path);
    errno = ENOSPC;
    return 1;
}

/* A disk that becomes full during a write takes the first half of it. */
static int is_half(void) { return stays_full && calls == failing; }

#define REAL(type, name, ...)                                                          \
    static type (*real)(__VA_ARGS__);                                                  \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define WRITE(name, offset_type, parameter, argument)                                  \
    ssize_t name(int file, const void *data, size_t size parameter) {                  \
        REAL(ssize_t, name, int, const void *, size_t offset_type);                    \
        if (fails("write", path_of(file), 1)) {                                        \
            if (!is_half() || size < 2) return -1;                                     \
            return real(file, data, size / 2 argument);                                \
        }                                                                              \
        return real(file, data, size argument);                                        \
    }
#define NONE
#define COMMA ,
WRITE(write, NONE, NONE, NONE)
WRITE(pwrite, COMMA off_t, COMMA off_t offset, COMMA offset)
WRITE(pwrite64, COMMA off64_t, COMMA off64_t offset, COMMA offset)

ssize_t writev(int file, const struct iovec *parts, int number) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    return fails("write", path_of(file), 1) ? -1 : real(file, parts, number);
}
size_t fwrite(const void *data, size_t size, size_t number, FILE *stream) {
    REAL(size_t, fwrite, const void *, size_t, size_t, FILE *);
    if (folder[0] && fails("write", path_of(fileno(stream)), 1)) return 0;
    return real(data, size, number, stream);
}

static int makes_new(const char *path) {
    int saved = errno, is_new = access(path, F_OK) != 0;
    errno = saved;
    return is_new;
}

#define OPEN(name)                                                                     \
    int name(const char *path, int flags, ...) {                                       \
        mode_t mode = 0;                                                               \
        REAL(int, name, const char *, int, ...);                                       \
        if (flags & (O_CREAT | O_TMPFILE)) {                                           \
            va_list rest;                                                              \
            va_start(rest, flags);                                                     \
            mode = va_arg(rest, mode_t);                                               \
            va_end(rest);                                                              \
        }                                                                              \
        if ((flags & O_CREAT) && folder[0] && makes_new(path) &&                       \
            fails("create", path, 1))                                                  \
            return -1;                                                                 \
        return real(path, flags, mode);                                                \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                   \
    int name(int at, const char *path, int flags, ...) {                               \
        mode_t mode = 0;                                                               \
        REAL(int, name, int, const char *, int, ...);                                  \
        if (flags & (O_CREAT | O_TMPFILE)) {                                           \
            va_list rest;                                                              \
            va_start(rest, flags);                                                     \
            mode = va_arg(rest, mode_t);                                               \
            va_end(rest);                                                              \
        }                                                                              \
        if ((flags & O_CREAT) && folder[0] && at == AT_FDCWD && makes_new(path) &&     \
            fails("create", path, 1))                                                  \
            return -1;                                                                 \
        return real(at, path, flags, mode);                                            \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                                    \
    FILE *name(const char *path, const char *mode) {                                   \
        REAL(FILE *, name, const char *, const char *);                                \
        if (folder[0] && mode[0] != 'r' && fails("create", path, 1)) return NULL;      \
        return real(path, mode);                                                       \
    }
FOPEN(fopen)
FOPEN(fopen64)

int close(int file) {
    REAL(int, close, int);
    /* Network file systems report a full disk when a written file is closed. */
    if (folder[0] && !stays_full && (fcntl(file, F_GETFL) & O_ACCMODE) != O_RDONLY &&
        fails("close", path_of(file), 0)) {
        real(file);
        errno = ENOSPC;
        return -1;
    }
    return real(file);
}
int fsync(int file) {
    REAL(int, fsync, int);
    return fails("fsync", path_of(file), 0) ? -1 : real(file);
}
int fdatasync(int file) {
    REAL(int, fdatasync, int);
    return fails("fsync", path_of(file), 0) ? -1 : real(file);
}
int ftruncate(int file, off_t size) {
    REAL(int, ftruncate, int, off_t);
    return fails("truncate", path_of(file), 0) ? -1 : real(file, size);
}
int ftruncate64(int file, off64_t size) {
    REAL(int, ftruncate64, int, off64_t);
    return fails("truncate", path_of(file), 0) ? -1 : real(file, size);
}
int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    if (folder[0] && makes_new(path) && fails("mkdir", path, 1)) return -1;
    return real(path, mode);
}
int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    return fails("rename", to, 0) ? -1 : real(from, to);
}
int link(const char *from, const char *to) {
    REAL(int, link, const char *, const char *);
    return fails("link", to, 1) ? -1 : real(from, to);
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
    REAL(int, linkat, int, const char *, int, const char *, int);
    return fails("link", to, 1) ? -1 : real(a, from, b, to, flags);
}
