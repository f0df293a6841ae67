/* The least a server of one event stream can do: raw_send RATE SIZE prints its port, takes whoever connects, and sends
 * each the same event, RATE times a second: one send() a client, nothing else. It reads one request, parses nothing, and
 * drops whoever doesn't keep up. What it costs is the kernel's price. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CLIENTS 16000
#define MAX_EVENT 65536

static const char ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: connected\n\n";

static int clients[MAX_CLIENTS];
static int count;

static long long microseconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static int listen_on_a_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) || listen(listener, 4096)) {
        perror("raw_send");
        exit(1);
    }
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static void take_a_client(int listener)
{
    char request[4096];
    int one = 1, client = accept(listener, NULL, NULL);
    if (client < 0)
        return;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (count == MAX_CLIENTS || recv(client, request, sizeof request, 0) <= 0 ||
        send(client, ANSWER, sizeof ANSWER - 1, MSG_NOSIGNAL) < 0)
        close(client);
    else
        clients[count++] = client;
}

static void send_to_all(size_t size)
{
    static char event[MAX_EVENT + 64];
    int length = sprintf(event, "data: {\"type\":\"batch_update\",\"description\":\"at=%lld ", microseconds(CLOCK_REALTIME));
    int end = (int)size + 6 - 2; /* 6 for "data: ", 2 for what closes the JSON */
    memset(event + length, 'x', (size_t)(end - length));
    length = end + sprintf(event + end, "\"}\n\n");
    for (int i = 0; i < count; i++)
        if (send(clients[i], event, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL) != length) {
            close(clients[i]);
            clients[i--] = clients[--count];
        }
}

int main(int argc, char **argv)
{
    double rate = argc > 1 ? atof(argv[1]) : 10;
    size_t size = argc > 2 ? (size_t)atol(argv[2]) : 500;
    long long period = rate > 0 ? (long long)(1e6 / rate) : 0;
    if (size < 100 || size > MAX_EVENT) {
        fprintf(stderr, "raw_send: SIZE is 100 to %d bytes\n", MAX_EVENT);
        return 1;
    }
    struct pollfd waiting = {.fd = listen_on_a_free_port(), .events = POLLIN};
    for (long long due = microseconds(CLOCK_MONOTONIC) + period;;) {
        long long left = due - microseconds(CLOCK_MONOTONIC);
        if (period && left <= 0) {
            due += period;
            send_to_all(size);
        } else {
            struct timespec timeout = {left / 1000000, left % 1000000 * 1000};
            if (ppoll(&waiting, 1, period ? &timeout : NULL, NULL) > 0)
                take_a_client(waiting.fd);
        }
    }
}
