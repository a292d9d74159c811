/* Many watchers of one stream of lines: how long from the cause of a message until each of them has it?
 *
 * Works for any server on a Unix socket that sends lines to whoever asked for them. This program is all of the watchers
 * and the cause as well, so one clock serves both: it writes TRIGGER on a connection of its own, or, when TRIGGER is
 * empty, connects and lets go. Prints one line of JSON; ends after COUNT messages for each watcher.
 *
 *   watch SOCKET WATCHERS COUNT PER_SECOND MARK SUBSCRIBE TRIGGER
 *
 * A message is a line that holds MARK; the nth one of each watcher belongs to the nth cause.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ROOM (1 << 16)

struct watcher {
    int fd;
    size_t have;
    long seen;
    char data[ROOM];
};

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int opened(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) die("connect");
    return fd;
}

static long take(struct watcher *w, const char *mark, const uint64_t *caused, long causes, uint32_t *delay) {
    ssize_t more = read(w->fd, w->data + w->have, ROOM - w->have - 1);
    if (more <= 0) die("read");
    uint64_t t = now();
    long got = 0;
    w->have += (size_t)more;
    char *at = w->data, *end = w->data + w->have, *line;
    while ((line = memchr(at, '\n', (size_t)(end - at)))) {
        *line = 0;
        if (strstr(at, mark) && w->seen < causes) delay[got++] = (uint32_t)(t - caused[w->seen++]);
        at = line + 1;
    }
    w->have = (size_t)(end - at);
    memmove(w->data, at, w->have);
    return got;
}

int main(int argc, char **argv) {
    if (argc != 8) {
        fprintf(stderr, "usage: watch SOCKET WATCHERS COUNT PER_SECOND MARK SUBSCRIBE TRIGGER\n");
        return 2;
    }
    int watchers = atoi(argv[2]);
    long count = atol(argv[3]), wanted = count * watchers, got = 0, causes = 0;
    size_t trigger = strlen(argv[7]);
    struct watcher *all = calloc((size_t)watchers, sizeof *all);
    uint32_t *delay = malloc(sizeof(uint32_t) * (size_t)(wanted + ROOM));
    uint64_t *caused = calloc((size_t)count, sizeof *caused);
    int ep = epoll_create1(0);
    int own = trigger ? opened(argv[1]) : -1;
    for (int i = 0; i < watchers; i++) {
        all[i].fd = opened(argv[1]);
        if (write(all[i].fd, argv[6], strlen(argv[6])) < 0 || write(all[i].fd, "\n", 1) < 0) die("write");
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        epoll_ctl(ep, EPOLL_CTL_ADD, all[i].fd, &event);
    }
    usleep(500000); /* all subscriptions are in force */
    struct itimerspec every = {.it_interval.tv_nsec = 1000000000L / atol(argv[4]), .it_value.tv_nsec = 1};
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    timerfd_settime(timer, 0, &every, NULL);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(ep, EPOLL_CTL_ADD, timer, &event);
    struct epoll_event ready[256];
    static char scrap[4096];
    while (got < wanted) {
        int n = epoll_wait(ep, ready, 256, 20000);
        if (n <= 0) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (ready[i].data.ptr) {
                got += take(ready[i].data.ptr, argv[5], caused, causes, delay + got);
                continue;
            }
            if (read(timer, scrap, 8) < 0) die("timer");
            if (causes == count) continue;
            caused[causes++] = now();
            if (!trigger) {
                close(opened(argv[1]));
                continue;
            }
            if (write(own, argv[7], trigger) < 0) die("write");
            while (recv(own, scrap, sizeof scrap, MSG_DONTWAIT) > 0) continue;
        }
    }
    qsort(delay, (size_t)got, sizeof *delay, by_value);
    printf("{\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, \"count\": %ld}\n", delay[got / 2] / 1e3,
           delay[got - 1 - got / 100] / 1e3, delay[got - 1] / 1e3, got);
    return 0;
}
