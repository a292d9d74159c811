/* Makes a disk slow, for a program that is started with this library in LD_PRELOAD: every call that goes to a path below
 * SLOW_DISK_DIR, and every sync when SLOW_DISK_SYNCS is set, takes as many milliseconds as the file SLOW_DISK_FILE says. Without that file nothing
 * is delayed. Only calls of the C library are delayed, so that the library itself can look at its file. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void wait_for_disk(const char *path) {
    const char *directory = getenv("SLOW_DISK_DIR"), *control = getenv("SLOW_DISK_FILE");
    if (!directory || !control || (!path && !getenv("SLOW_DISK_SYNCS")) || (path && strncmp(path, directory, strlen(directory)) != 0))
        return;
    int fd = syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    char text[32] = {0};
    syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    long ms = atol(text);
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0)
        ;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define STAT(name, type)                                                                                               \
    int name(const char *path, struct type *found) {                                                                  \
        wait_for_disk(path);                                                                                           \
        return REAL(name)(path, found);                                                                                \
    }
STAT(stat, stat)
STAT(lstat, stat)
STAT(stat64, stat64)
STAT(lstat64, stat64)
STAT(statvfs, statvfs)
STAT(statvfs64, statvfs64)

#define STAT_AT(name, type)                                                                                            \
    int name(int directory, const char *path, struct type *found, int flags) {                                        \
        wait_for_disk(path);                                                                                           \
        return REAL(name)(directory, path, found, flags);                                                              \
    }
STAT_AT(fstatat, stat)
STAT_AT(fstatat64, stat64)

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                      \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0;                                              \
        va_end(rest);                                                                                                  \
        wait_for_disk(path);                                                                                           \
        return REAL(name)(path, flags, mode);                                                                          \
    }
OPEN(open)
OPEN(open64)

#define OPEN_AT(name)                                                                                                  \
    int name(int directory, const char *path, int flags, ...) {                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0;                                              \
        va_end(rest);                                                                                                  \
        wait_for_disk(path);                                                                                           \
        return REAL(name)(directory, path, flags, mode);                                                               \
    }
OPEN_AT(openat)
OPEN_AT(openat64)

DIR *opendir(const char *path) {
    wait_for_disk(path);
    return REAL(opendir)(path);
}

int access(const char *path, int mode) {
    wait_for_disk(path);
    return REAL(access)(path, mode);
}

int unlink(const char *path) {
    wait_for_disk(path);
    return REAL(unlink)(path);
}

int rename(const char *from, const char *to) {
    wait_for_disk(to);
    return REAL(rename)(from, to);
}

int fsync(int fd) {
    wait_for_disk(NULL);
    return REAL(fsync)(fd);
}

int fdatasync(int fd) {
    wait_for_disk(NULL);
    return REAL(fdatasync)(fd);
}
