/* HTTP/1.1 load client: one epoll process; prints one JSON line.
 *
 * load PORT PATH BODY_FILE CONNECTIONS SECONDS RATE [HEADER...]
 *
 * RATE 0 is a closed loop: each connection sends its next request when the answer is complete.
 * RATE > 0 is an open loop of RATE requests/s over the connections, and latency counts from the
 * time a request was due. Events are counted as occurrences of "data: {". Answers that have begun
 * when the time is up are finished, so that whole requests are counted.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define MAX_SAMPLES (1 << 22)

struct conn {
    int fd, busy, in_body, chunked, match;
    uint64_t due;
    size_t sent, left; /* of the request; of a Content-Length body */
    char head[16384];
    size_t head_len;
    char end[5]; /* last bytes of a chunked body */
};

static struct conn *conns;
static int epoll_fd, port;
static char *request;
static size_t request_len;
static uint32_t *samples;
static uint64_t count, errors, events_seen, bytes;
static int status_seen;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void dial(struct conn *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (void *)&address, sizeof address)) perror("connect"), exit(1);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
}

static void push(struct conn *c) {
    while (c->sent < request_len) {
        ssize_t n = send(c->fd, request + c->sent, request_len - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
        if (n < 0) {
            if (errno == EAGAIN) epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
            return;
        }
        c->sent += n;
        if (c->sent == request_len && (size_t)n != request_len) {
            event.events = EPOLLIN;
            epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
        }
    }
}

static void begin(struct conn *c, uint64_t due) {
    c->busy = 1;
    c->due = due;
    c->sent = c->head_len = c->left = 0;
    c->in_body = c->chunked = c->match = 0;
    memset(c->end, 0, sizeof c->end);
    push(c);
}

static void finish(struct conn *c, int ok) {
    if (ok) {
        if (count < MAX_SAMPLES) samples[count] = (now_ns() - c->due) / 1000;
        count++;
    } else {
        errors++;
    }
    c->busy = 0;
}

static void redial(struct conn *c) {
    close(c->fd);
    dial(c);
}

/* 1: the answer is complete */
static int body(struct conn *c, const char *data, size_t len) {
    static const char mark[] = "data: {";
    for (size_t i = 0; i < len; i++) {
        c->match = data[i] == mark[c->match] ? c->match + 1 : data[i] == 'd';
        if (c->match == 7) events_seen++, c->match = 0;
    }
    bytes += len;
    if (!c->chunked) {
        c->left -= len < c->left ? len : c->left;
        return c->left == 0;
    }
    for (size_t i = len > 5 ? len - 5 : 0; i < len; i++) {
        memmove(c->end, c->end + 1, 4);
        c->end[4] = data[i];
    }
    return !memcmp(c->end, "0\r\n\r\n", 5);
}

static void readable(struct conn *c) {
    static char buffer[262144];
    ssize_t n = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN) return;
        if (c->busy) finish(c, 0);
        redial(c);
        return;
    }
    char *data = buffer;
    if (!c->in_body) {
        size_t room = sizeof c->head - 1 - c->head_len, take = (size_t)n < room ? (size_t)n : room;
        memcpy(c->head + c->head_len, data, take);
        c->head_len += take;
        c->head[c->head_len] = 0;
        char *end = strstr(c->head, "\r\n\r\n");
        if (!end) return;
        size_t head_size = end + 4 - c->head;
        data += head_size - (c->head_len - take);
        n -= data - buffer;
        status_seen = atoi(c->head + 9);
        *end = 0;
        char *length = strcasestr(c->head, "content-length:");
        c->chunked = strcasestr(c->head, "transfer-encoding: chunked") != NULL;
        c->left = length ? strtoul(length + 15, NULL, 10) : 0;
        c->in_body = 1;
    }
    if (body(c, data, n)) {
        int closes = strcasestr(c->head, "connection: close") != NULL;
        finish(c, status_seen == 200);
        if (closes) redial(c);
    }
}

static int by_value(const void *a, const void *b) {
    return *(uint32_t *)a < *(uint32_t *)b ? -1 : *(uint32_t *)a > *(uint32_t *)b;
}

static char *slurp(const char *path, size_t *len) {
    FILE *file = fopen(path, "rb");
    if (!file) perror(path), exit(1);
    fseek(file, 0, SEEK_END);
    *len = ftell(file);
    rewind(file);
    char *data = malloc(*len + 1);
    if (fread(data, 1, *len, file) != *len) exit(1);
    fclose(file);
    return data;
}

int main(int argc, char **argv) {
    if (argc < 7) return fprintf(stderr, "usage: load PORT PATH BODY CONNECTIONS SECONDS RATE [HEADER...]\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    port = atoi(argv[1]);
    int connections = atoi(argv[4]);
    double seconds = atof(argv[5]), rate = atof(argv[6]);
    size_t body_len;
    char *content = slurp(argv[3], &body_len), *head;
    size_t head_len = 0;
    head = malloc(65536);
    head_len += sprintf(head, "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n", argv[2], port);
    for (int i = 7; i < argc; i++) head_len += sprintf(head + head_len, "%s\r\n", argv[i]);
    head_len += sprintf(head + head_len,
                        "accept: application/json\r\naccept-encoding: identity\r\nuser-agent: OpenAI/Python 2.0\r\n"
                        "x-stainless-lang: python\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n",
                        body_len);
    request_len = head_len + body_len;
    request = malloc(request_len);
    memcpy(request, head, head_len);
    memcpy(request + head_len, content, body_len);
    samples = malloc(MAX_SAMPLES * sizeof *samples);
    epoll_fd = epoll_create1(0);
    conns = calloc(connections, sizeof *conns);
    for (int i = 0; i < connections; i++) dial(&conns[i]);
    uint64_t start = now_ns(), stop = start + seconds * 1e9, gap = rate > 0 ? 1e9 / rate : 0, due = start;
    if (!gap)
        for (int i = 0; i < connections; i++) begin(&conns[i], now_ns());
    struct epoll_event events[256];
    int running = connections;
    while (running) {
        uint64_t now = now_ns();
        int wait_ms = 100;
        if (gap && now < stop) {
            for (; due <= now; due += gap) {
                int i = 0;
                while (i < connections && conns[i].busy) i++;
                if (i == connections) break; /* all busy: the request stays due */
                begin(&conns[i], due);
            }
            wait_ms = due > now ? (due - now) / 1000000 : 0;
        }
        int n = epoll_wait(epoll_fd, events, 256, wait_ms);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) push(c);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c);
            if (!gap && !c->busy && now_ns() < stop) begin(c, now_ns());
        }
        if (now_ns() >= stop) {
            running = 0;
            for (int i = 0; i < connections; i++) running += conns[i].busy;
            if (now_ns() > stop + 30000000000ull) errors += running, running = 0;
        }
    }
    double took = (now_ns() - start) / 1e9;
    uint64_t kept = count < MAX_SAMPLES ? count : MAX_SAMPLES;
    qsort(samples, kept, sizeof *samples, by_value);
    printf("{\"requests\":%lu,\"errors\":%lu,\"events\":%lu,\"bytes\":%lu,\"seconds\":%.3f,"
           "\"p50_us\":%u,\"p99_us\":%u,\"last_status\":%d}\n",
           count, errors, events_seen, bytes, took, kept ? samples[kept / 2] : 0,
           kept ? samples[(uint64_t)(kept * 0.99)] : 0, status_seen);
    return 0;
}
