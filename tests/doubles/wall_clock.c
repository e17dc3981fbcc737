/* LD_PRELOAD: the wall clock is off by as many seconds as the file named by WALL_CLOCK says; all other clocks are true.
 *
 * The word `synced` or `unsynced` behind the seconds is what the kernel then says about its clock.
 *
 * libfaketime does more than that: with the monotonic clock left alone, its clock_nanosleep() fails with EINVAL.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

static long off_s(char text[32]) {
    const char *name = getenv("WALL_CLOCK");
    memset(text, 0, 32);
    if (!name) return 0;
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    if (read(fd, text, 31) < 0) text[0] = 0;
    close(fd);
    return atol(text);
}

int adjtimex(struct timex *about) {
    static int (*real)(struct timex *);
    char text[32];
    if (!real) real = (int (*)(struct timex *))dlsym(RTLD_NEXT, "adjtimex");
    off_s(text);
    int unsynced = strstr(text, "unsynced") != NULL;
    if (!unsynced && !strstr(text, "synced")) return real(about);
    about->status = unsynced ? STA_UNSYNC : 0;
    about->maxerror = unsynced ? 16000000 : 5000;
    return unsynced ? TIME_ERROR : TIME_OK;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    char text[32];
    int result = real(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += off_s(text);
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return (time_t)-1;
    if (out) *out = exact.tv_sec;
    return exact.tv_sec;
}
