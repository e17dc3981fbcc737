/* LD_PRELOAD: what the file named by BAD_DISK says happens to the store's files (those with "store.db" in their path).
 *
 *   ok       as always
 *   hang     syncing does not return until the word changes
 *   eio      writing and syncing fail with EIO
 *   enospc   writing fails with ENOSPC
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_store(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return strstr(path, "store.db") != NULL;
}

static int says(const char *word) {
    const char *name = getenv("BAD_DISK");
    char text[16] = "";
    if (!name) return 0;
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 && strncmp(text, word, strlen(word)) == 0;
}

static int sync_with(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (is_store(fd)) {
        while (says("hang")) usleep(10000);
        if (says("eio")) { errno = EIO; return -1; }
    }
    return real(fd);
}

int fsync(int fd) { return sync_with("fsync", fd); }
int fdatasync(int fd) { return sync_with("fdatasync", fd); }

static int refused(int fd) {
    if (!is_store(fd)) return 0;
    if (says("eio")) { errno = EIO; return 1; }
    if (says("enospc")) { errno = ENOSPC; return 1; }
    return 0;
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    return refused(fd) ? -1 : real(fd, data, n, at);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");
    return refused(fd) ? -1 : real(fd, data, n, at);
}
