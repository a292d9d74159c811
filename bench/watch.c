/* Many watchers of one stream of lines: how much later than the first does each get the same message?
 *
 * Works for any server on a Unix socket that sends lines to whoever asked for them. The delay behind the first receiver is
 * what fan-out costs; it needs no clock shared with the sender. Prints one line of JSON; ends after COUNT messages each.
 *
 *   watch SOCKET WATCHERS COUNT KEY SUBSCRIBE
 *
 * A message is a line that holds KEY followed by a number: the message's own.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ROOM (1 << 16)
#define KEYS (1 << 20)

struct watcher {
    int fd;
    size_t have;
    char data[ROOM];
};

static uint64_t first[KEYS];

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

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: watch SOCKET WATCHERS COUNT KEY SUBSCRIBE\n");
        return 2;
    }
    int watchers = atoi(argv[2]);
    long wanted = atol(argv[3]) * watchers, got = 0;
    size_t key = strlen(argv[4]);
    struct watcher *all = calloc((size_t)watchers, sizeof *all);
    uint32_t *delay = malloc(sizeof(uint32_t) * (size_t)(wanted + ROOM));
    int ep = epoll_create1(0);
    for (int i = 0; i < watchers; i++) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
        all[i].fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(all[i].fd, (struct sockaddr *)&address, sizeof address) != 0) die("connect");
        if (write(all[i].fd, argv[5], strlen(argv[5])) < 0 || write(all[i].fd, "\n", 1) < 0) die("write");
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        epoll_ctl(ep, EPOLL_CTL_ADD, all[i].fd, &event);
    }
    printf("WATCHING\n");
    fflush(stdout);
    struct epoll_event ready[256];
    while (got < wanted) {
        int n = epoll_wait(ep, ready, 256, 20000);
        if (n <= 0) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            struct watcher *w = ready[i].data.ptr;
            ssize_t more = read(w->fd, w->data + w->have, ROOM - w->have - 1);
            if (more <= 0) die("read");
            uint64_t t = now();
            w->have += (size_t)more;
            char *at = w->data, *end = w->data + w->have, *line;
            while ((line = memchr(at, '\n', (size_t)(end - at)))) {
                *line = 0;
                char *found = strstr(at, argv[4]);
                if (found && got < wanted) {
                    uint64_t *seen = &first[strtoul(found + key, NULL, 10) % KEYS];
                    if (!*seen) *seen = t;
                    delay[got++] = (uint32_t)(t - *seen);
                }
                at = line + 1;
            }
            w->have = (size_t)(end - at);
            memmove(w->data, at, w->have);
        }
    }
    qsort(delay, (size_t)got, sizeof *delay, by_value);
    printf("{\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, \"count\": %ld}\n", delay[got / 2] / 1e3,
           delay[got - 1 - got / 100] / 1e3, delay[got - 1] / 1e3, got);
    return 0;
}
