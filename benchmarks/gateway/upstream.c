/* Scripted OpenAI-compatible upstream: one epoll process, a few microseconds per call.
 *
 * upstream PORT
 *
 * A POST whose body holds "stream":true gets CHUNKS server-sent events and [DONE]: one write each
 * TICK_MS when paced, everything in one write when the body also holds "burst". Any other POST
 * gets one chat completion. A GET gets an empty model list.
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
#include <sys/timerfd.h>
#include <unistd.h>

#define MAX_FD 8192
#define CHUNKS 100
#define TICK_MS 10
#define MAX_REQUEST (1 << 20)

struct conn {
    char *in;          /* request bytes so far */
    size_t have, size; /* of `in` */
    int left;          /* paced chunks still to send; -1: not streaming */
    char *out;         /* unsent bytes */
    size_t out_len;
    struct script *script;
    int next;          /* fd of the next streaming connection, -1: last */
};

static struct conn conns[MAX_FD];
static int streaming = -1; /* first fd of the paced list */
static int epoll_fd;
static char models[512], head[512], piece[CHUNKS][512];
static size_t models_len, head_len, piece_len[CHUNKS];

/* What depends on the prompt's size: the usage must be plausible, gateways check it. */
static struct script {
    char answer[2048], tail[1024], burst[CHUNKS * 512 + 2048];
    size_t answer_len, tail_len, burst_len;
} scripts[2];

static size_t framed(char *to, const char *event) {
    return sprintf(to, "%zx\r\n%s\r\n", strlen(event), event);
}

static void prepare(void) {
    const char *list = "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"created\":1,"
                       "\"owned_by\":\"bench\"}]}";
    models_len = sprintf(models,
                         "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-length: %zu\r\n"
                         "content-type: application/json\r\n\r\n%s",
                         strlen(list), list);
    head_len = sprintf(head, "HTTP/1.1 200 OK\r\ndate: Fri, 21 Nov 2025 08:00:00 GMT\r\nserver: uvicorn\r\n"
                             "content-type: text/event-stream; charset=utf-8\r\n"
                             "transfer-encoding: chunked\r\n\r\n");
    char event[512];
    for (int i = 0; i < CHUNKS; i++) {
        sprintf(event,
                "data: {\"id\":\"chatcmpl-7f3a9c21d4e84b6f\",\"object\":\"chat.completion.chunk\","
                "\"created\":1763700000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{%s"
                "\"content\":\" token%04d\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
                i ? "" : "\"role\":\"assistant\",", i);
        piece_len[i] = framed(piece[i], event);
    }
}

static void write_script(struct script *s, int prompt_tokens) {
    char body[1024], event[512];
    sprintf(body,
            "{\"id\":\"chatcmpl-7f3a9c21d4e84b6f\",\"object\":\"chat.completion\",\"created\":1763700000,"
            "\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
            "\"The capital of France is Paris. It lies on the Seine in the north of the country, and has "
            "been the seat of its government, with short interruptions, since the late Middle Ages.\","
            "\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":%d,"
            "\"completion_tokens\":38,\"total_tokens\":%d,\"prompt_tokens_details\":{\"cached_tokens\":0}},"
            "\"system_fingerprint\":\"fp_0123456789\"}",
            prompt_tokens, prompt_tokens + 38);
    s->answer_len =
        sprintf(s->answer,
                "HTTP/1.1 200 OK\r\ndate: Fri, 21 Nov 2025 08:00:00 GMT\r\nserver: uvicorn\r\n"
                "content-length: %zu\r\ncontent-type: application/json\r\n\r\n%s",
                strlen(body), body);
    s->tail_len = framed(s->tail,
                         "data: {\"id\":\"chatcmpl-7f3a9c21d4e84b6f\",\"object\":\"chat.completion.chunk\","
                         "\"created\":1763700000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{},"
                         "\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n");
    sprintf(event,
            "data: {\"id\":\"chatcmpl-7f3a9c21d4e84b6f\",\"object\":\"chat.completion.chunk\","
            "\"created\":1763700000,\"model\":\"bench\",\"choices\":[],\"usage\":{"
            "\"prompt_tokens\":%d,\"completion_tokens\":100,\"total_tokens\":%d}}\n\n",
            prompt_tokens, prompt_tokens + 100);
    s->tail_len += framed(s->tail + s->tail_len, event);
    s->tail_len += framed(s->tail + s->tail_len, "data: [DONE]\n\n");
    s->tail_len += sprintf(s->tail + s->tail_len, "0\r\n\r\n");
    memcpy(s->burst, head, s->burst_len = head_len);
    for (int i = 0; i < CHUNKS; i++) {
        memcpy(s->burst + s->burst_len, piece[i], piece_len[i]);
        s->burst_len += piece_len[i];
    }
    memcpy(s->burst + s->burst_len, s->tail, s->tail_len);
    s->burst_len += s->tail_len;
}

static void drop(int fd) {
    struct conn *c = &conns[fd];
    if (c->left >= 0) {
        int *link = &streaming;
        while (*link != fd) link = &conns[*link].next;
        *link = c->next;
    }
    free(c->in);
    free(c->out);
    memset(c, 0, sizeof *c);
    c->left = -1;
    close(fd);
}

static void watch(int fd, uint32_t events, int op) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(epoll_fd, op, fd, &event);
}

/* 0: the connection is gone */
static int emit(int fd, const char *data, size_t len) {
    struct conn *c = &conns[fd];
    if (!c->out_len) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) return drop(fd), 0;
        if (n == (ssize_t)len) return 1;
        if (n > 0) data += n, len -= n;
        watch(fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    }
    c->out = realloc(c->out, c->out_len + len);
    memcpy(c->out + c->out_len, data, len);
    c->out_len += len;
    return 1;
}

static void flush(int fd) {
    struct conn *c = &conns[fd];
    ssize_t n = send(fd, c->out, c->out_len, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN) drop(fd);
        return;
    }
    memmove(c->out, c->out + n, c->out_len - n);
    c->out_len -= n;
    if (!c->out_len) watch(fd, EPOLLIN, EPOLL_CTL_MOD);
}

static int reply(int fd, const char *request, size_t head_size, size_t body_size) {
    struct conn *c = &conns[fd];
    const char *body = request + head_size;
    struct script *script = &scripts[body_size > 8192];
    if (request[0] == 'G') return emit(fd, models, models_len);
    if (!memmem(body, body_size, "\"stream\":true", 13) && !memmem(body, body_size, "\"stream\": true", 14))
        return emit(fd, script->answer, script->answer_len);
    if (memmem(body, body_size, "burst", 5)) return emit(fd, script->burst, script->burst_len);
    c->script = script;
    c->left = CHUNKS;
    c->next = streaming;
    streaming = fd;
    return emit(fd, head, head_len);
}

static void readable(int fd) {
    struct conn *c = &conns[fd];
    if (c->size - c->have < 65536) {
        c->size = c->have + 131072;
        c->in = realloc(c->in, c->size);
    }
    ssize_t n = recv(fd, c->in + c->have, c->size - c->have - 1, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) drop(fd);
        return;
    }
    c->have += n;
    c->in[c->have] = 0;
    for (;;) {
        char *end = memmem(c->in, c->have, "\r\n\r\n", 4);
        if (!end) return;
        size_t head_size = end + 4 - c->in, body_size = 0;
        char *length = strcasestr(c->in, "\r\ncontent-length:");
        if (length && length < end) body_size = strtoul(length + 17, NULL, 10);
        if (strcasestr(c->in, "transfer-encoding: chunked")) { /* some proxies re-chunk requests */
            char *stop = memmem(end + 4, c->have - head_size, "\r\n0\r\n\r\n", 7);
            if (!stop) return;
            body_size = stop + 7 - (end + 4);
        }
        if (body_size > MAX_REQUEST) return drop(fd);
        if (c->have < head_size + body_size) return;
        if (!reply(fd, c->in, head_size, body_size)) return;
        size_t used = head_size + body_size;
        memmove(c->in, c->in + used, c->have - used + 1);
        c->have -= used;
        if (!c->have) return;
    }
}

static void tick(void) {
    for (int fd = streaming, next; fd >= 0; fd = next) {
        struct conn *c = &conns[fd];
        next = c->next;
        int index = CHUNKS - c->left;
        if (index < CHUNKS) {
            c->left--;
            emit(fd, piece[index], piece_len[index]);
            continue;
        }
        int *link = &streaming;
        while (*link != fd) link = &conns[*link].next;
        *link = next;
        c->left = -1;
        emit(fd, c->script->tail, c->script->tail_len);
    }
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: upstream PORT\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    prepare();
    write_script(&scripts[0], 312);
    write_script(&scripts[1], 6800);
    for (int i = 0; i < MAX_FD; i++) conns[i].left = -1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) return perror("bind"), 1;
    epoll_fd = epoll_create1(0);
    watch(listener, EPOLLIN, EPOLL_CTL_ADD);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec every = {{0, TICK_MS * 1000000}, {0, TICK_MS * 1000000}};
    timerfd_settime(timer, 0, &every, NULL);
    watch(timer, EPOLLIN, EPOLL_CTL_ADD);
    struct epoll_event events[256];
    for (;;) {
        int count = epoll_wait(epoll_fd, events, 256, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == timer) {
                uint64_t times;
                if (read(timer, &times, sizeof times) > 0) tick();
            } else if (fd == listener) {
                int peer;
                while ((peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    if (peer >= MAX_FD) { close(peer); continue; }
                    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                    watch(peer, EPOLLIN, EPOLL_CTL_ADD);
                }
            } else {
                if (events[i].events & EPOLLOUT) flush(fd);
                if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(fd);
            }
        }
    }
}
