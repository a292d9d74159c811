/* A load on a Unix socket that speaks lines: N connections, each with a fixed number of requests in flight.
 *
 * Written in C because a load that is slower than the server measures itself. Prints one line of JSON:
 * requests per second and the latency percentiles in microseconds. Ends after COUNT replies.
 *
 *   load SOCKET CLIENTS IN_FLIGHT COUNT SKIP_LINES REPLY_LINES REQUEST
 *
 * SKIP_LINES is the number of lines that the server says by itself on each new connection, REPLY_LINES how many lines
 * make one reply: 1 for modeld, 2 for a bulk string of redis.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MOST_IN_FLIGHT 256

struct client {
    int fd, skip, head, waiting, lines;
    uint64_t sent[MOST_IN_FLIGHT];
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

static void send_some(struct client *c, const char *batch, size_t length, int count) {
    uint64_t t = now();
    for (int i = 0; i < count; i++) c->sent[(c->head + c->waiting++) % MOST_IN_FLIGHT] = t;
    size_t total = length * (size_t)count, done = 0;
    while (done < total) {
        ssize_t n = write(c->fd, batch + done, total - done);
        if (n < 0 && errno != EINTR) die("write");
        if (n > 0) done += (size_t)n;
    }
}

int main(int argc, char **argv) {
    if (argc != 8) {
        fprintf(stderr, "usage: load SOCKET CLIENTS IN_FLIGHT COUNT SKIP_LINES REPLY_LINES REQUEST\n");
        return 2;
    }
    int clients = atoi(argv[2]), in_flight = atoi(argv[3]), per_reply = atoi(argv[6]);
    long count = atol(argv[4]), got = 0;
    if (clients < 1 || in_flight < 1 || in_flight > MOST_IN_FLIGHT || count < 1 || per_reply < 1) return 2;
    size_t length = strlen(argv[7]) + 1;
    char *batch = malloc(length * (size_t)in_flight);
    for (int i = 0; i < in_flight; i++) {
        memcpy(batch + length * (size_t)i, argv[7], length - 1);
        batch[length * (size_t)(i + 1) - 1] = '\n';
    }
    uint32_t *latency = malloc(sizeof(uint32_t) * (size_t)(count + (long)clients * in_flight));
    struct client *all = calloc((size_t)clients, sizeof *all);
    int ep = epoll_create1(0);
    for (int i = 0; i < clients; i++) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
        all[i].fd = socket(AF_UNIX, SOCK_STREAM, 0);
        all[i].skip = atoi(argv[5]);
        if (connect(all[i].fd, (struct sockaddr *)&address, sizeof address) != 0) die("connect");
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        epoll_ctl(ep, EPOLL_CTL_ADD, all[i].fd, &event);
    }
    static char buffer[1 << 18];
    for (int i = 0; i < clients; i++) { /* what the server says by itself, before the clock runs */
        while (all[i].skip > 0) {
            ssize_t n = read(all[i].fd, buffer, sizeof buffer);
            if (n <= 0) die("read");
            for (ssize_t k = 0; k < n; k++) all[i].skip -= buffer[k] == '\n';
        }
    }
    uint64_t start = now();
    for (int i = 0; i < clients; i++) send_some(&all[i], batch, length, in_flight);
    struct epoll_event ready[256];
    while (got < count) {
        int n = epoll_wait(ep, ready, 256, 10000);
        if (n <= 0) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            struct client *c = ready[i].data.ptr;
            ssize_t read_now = read(c->fd, buffer, sizeof buffer);
            if (read_now <= 0) die("read");
            uint64_t t = now();
            int lines = c->lines;
            for (char *at = buffer, *end = buffer + read_now; (at = memchr(at, '\n', (size_t)(end - at))); at++) lines++;
            c->lines = lines % per_reply;
            lines /= per_reply;
            for (int k = 0; k < lines; k++) {
                latency[got++] = (uint32_t)(t - c->sent[c->head]);
                c->head = (c->head + 1) % MOST_IN_FLIGHT;
                c->waiting--;
            }
            if (lines && got < count) send_some(c, batch, length, lines);
        }
    }
    double seconds = (double)(now() - start) / 1e9;
    qsort(latency, (size_t)got, sizeof *latency, by_value);
    printf("{\"rate\": %.0f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, \"count\": %ld}\n", (double)got / seconds,
           latency[got / 2] / 1e3, latency[got - 1 - got / 100] / 1e3, latency[got - 1] / 1e3, got);
    return 0;
}
