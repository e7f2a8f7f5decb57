/* The load on one server, in C: see the rules in load/__init__.py.

   generator exchange PORT PID STALL WARM_UP SECONDS CLIENTS SENDERS IS_ROOM
   generator visits   PORT PID STALL WARM_UP SECONDS SLOTS INSIDE IS_OBSERVED
   generator flood    PORT PID STALL WARM_UP SECONDS CLIENTS 1 1

   PID is the server's process. STALL, WARM_UP and SECONDS are in seconds. The messages
   and the order of events are those of clients.py, visits.py and flood.py. The figures
   are printed as JSON; an error is one line on stderr, and the exit status 1. */

#include "generator.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <sys/resource.h>

/* Source addresses, from 127.0.1.1 on: each has 28,000 ports. */
enum { SOURCES = 16 };

double stall;
int epoll;

static char buffer[TAIL_MAX + READ_SIZE];
char *const data = buffer + TAIL_MAX;

static int port;

static struct {
    double *values;
    size_t count, capacity;
} latencies;

/* Seconds; first those at the beginning, then the spans. */
static struct {
    clockid_t server_clock;
    double seconds, server_cpu, generator_cpu;
} window;

void fail(const char *form, ...)
{
    va_list values;
    va_start(values, form);
    vfprintf(stderr, form, values);
    va_end(values);
    fputc('\n', stderr);
    exit(1);
}

static double now_on(clockid_t clock)
{
    struct timespec time;
    if (clock_gettime(clock, &time) < 0)
        fail("the server has ended");
    return time.tv_sec + time.tv_nsec * 1e-9;
}

double now(void) { return now_on(CLOCK_MONOTONIC); }

void wait_for_silence(void) { usleep(50000); }

void *allocate(void *old, size_t size)
{
    void *new = realloc(old, size);
    if (!new)
        fail("out of memory");
    return new;
}

void add_latency(double seconds)
{
    if (latencies.count == latencies.capacity) {
        latencies.capacity = 2 * latencies.capacity + 1024;
        latencies.values =
            allocate(latencies.values, latencies.capacity * sizeof(double));
    }
    latencies.values[latencies.count++] = seconds;
}

size_t latency_count(void) { return latencies.count; }

void open_window(int pid)
{
    latencies.count = 0;
    if (clock_getcpuclockid(pid, &window.server_clock))
        fail("the server has ended");
    window.seconds = now();
    window.server_cpu = now_on(window.server_clock);
    window.generator_cpu = now_on(CLOCK_PROCESS_CPUTIME_ID);
}

void close_window(void)
{
    window.server_cpu = now_on(window.server_clock) - window.server_cpu;
    window.generator_cpu = now_on(CLOCK_PROCESS_CPUTIME_ID) - window.generator_cpu;
    window.seconds = now() - window.seconds;
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

void print_window(void)
{
    size_t count = latencies.count, p99 = count * 0.99; /* less than count */
    printf("\"seconds\": %.9f, \"server_cpu\": %.9f, \"generator_cpu\": %.9f",
           window.seconds, window.server_cpu, window.generator_cpu);
    if (count) {
        qsort(latencies.values, count, sizeof(double), compare);
        printf(", \"p50\": %.6f, \"p99\": %.6f", 1000 * latencies.values[count / 2],
               1000 * latencies.values[p99]);
    }
    puts("}");
}

int connect_client(int number, size_t *prefix_size)
{
    struct sockaddr_in source = {.sin_family = AF_INET}, server = source;
    struct timeval limit = {stall, 0};
    socklen_t size = sizeof source;
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 256 + number % SOURCES);
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.sin_port = htons(port);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    /* connect() obeys it; at zero, its wait would be endless. */
    limit.tv_usec = (stall - limit.tv_sec) * 1e6 + 1;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (fd < 0 || bind(fd, (struct sockaddr *)&source, sizeof source) < 0 ||
        connect(fd, (struct sockaddr *)&server, sizeof server) < 0 ||
        getsockname(fd, (struct sockaddr *)&source, &size) < 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        fail("client %d could not connect: %s", number, strerror(errno));
    *prefix_size = snprintf(NULL, 0, "用户%s%d 说:", inet_ntoa(source.sin_addr),
                            ntohs(source.sin_port));
    return fd;
}

void watch(int fd, void *owner)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = owner};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        fail("epoll_ctl: %s", strerror(errno));
}

ssize_t receive(int fd, int flags)
{
    ssize_t size = recv(fd, data, READ_SIZE, flags);
    if (size < 0 && errno != EAGAIN)
        fail("the server closed a client: %s", strerror(errno));
    return size;
}

int main(int count, char **arguments)
{
    if (count != 10)
        fail("generator needs 9 arguments, got %d", count - 1);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    port = atoi(arguments[2]);
    stall = atof(arguments[4]);
    epoll = epoll_create1(0);
    struct load load = {
        .pid = atoi(arguments[3]),
        .warm_up = atof(arguments[5]),
        .seconds = atof(arguments[6]),
        .sizes = {atol(arguments[7]), atol(arguments[8]), atol(arguments[9])},
    };
    if (!strcmp(arguments[1], "exchange"))
        run_exchange(&load);
    else if (!strcmp(arguments[1], "visits"))
        run_visits(&load);
    else if (!strcmp(arguments[1], "flood"))
        run_flood(&load);
    else
        fail("generator must be exchange, visits or flood, got %s", arguments[1]);
    return 0;
}
