/* The load on one server, in C: see the rules in __init__.py.

   generator exchange PORT PID STALL WARM_UP SECONDS CLIENTS SENDERS IS_ROOM
   generator visits   PORT PID STALL WARM_UP SECONDS SLOTS INSIDE IS_OBSERVED
   generator flood    PORT PID STALL WARM_UP SECONDS CLIENTS 1 1

   PID is the server's process. STALL, WARM_UP and SECONDS are in seconds. The messages
   and the order of events are those of clients.py, visits.py and flood.py. The figures are printed
   as JSON; an error is one line on stderr, and the exit status 1. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    READ_SIZE = 65536,
    MESSAGE_SIZE = 32,
    PREFIX_MAX = 32,  /* a name and " 说:" */
    FRAME_MAX = PREFIX_MAX + MESSAGE_SIZE,
    SOURCES = 16,     /* source addresses 127.0.1.1 and following */
    PACE = 500,       /* clients that join at once */
    SWEEP_PARTS = 10, /* each millisecond, this part of the receivers is read */
    EVENTS = 1024,
    VISIT_MAX = 65536, /* bytes that a visitor receives */
    FLOOD_SIZE = 1024, /* bytes of a message */
    FLOOD_TRANSIT = 256 * 1024, /* most bytes whose echo has not arrived */
};

static const char FILLING[] = " will be repeated ";
static const double SILENCE = 0.05;

static int port, epoll;
static double stall;

/* The last data, with room before it for the incomplete message before that. */
static char buffer[FRAME_MAX + READ_SIZE];
static char *const data = buffer + FRAME_MAX;

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *form, ...)
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

static double now(void) { return now_on(CLOCK_MONOTONIC); }

static void pause_for(double seconds)
{
    struct timespec time = {0, seconds * 1e9};
    nanosleep(&time, NULL);
}

static void *allocate(void *old, size_t size)
{
    void *new = realloc(old, size);
    if (!new)
        fail("out of memory");
    return new;
}

/* Latencies of the window, in seconds. */
static struct {
    double *values;
    size_t count, capacity;
} latencies;

static void add_latency(double seconds)
{
    if (latencies.count == latencies.capacity) {
        latencies.capacity = 2 * latencies.capacity + 1024;
        latencies.values =
            allocate(latencies.values, latencies.capacity * sizeof(double));
    }
    latencies.values[latencies.count++] = seconds;
}

/* The window: seconds, and the CPU seconds of the server and of this process. */
struct window {
    clockid_t server_clock;
    double began, server_cpu, generator_cpu;
};

static struct window open_window(int pid)
{
    struct window window = {.server_clock = (~(clockid_t)pid << 3) | 2};
    window.began = now();
    window.server_cpu = now_on(window.server_clock);
    window.generator_cpu = now_on(CLOCK_PROCESS_CPUTIME_ID);
    latencies.count = 0;
    return window;
}

static void close_window(struct window *window)
{
    window->server_cpu = now_on(window->server_clock) - window->server_cpu;
    window->generator_cpu = now_on(CLOCK_PROCESS_CPUTIME_ID) - window->generator_cpu;
    window->began = now() - window->began;
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Print the end of the figures: those of the window. */
static void print_window(const struct window *window)
{
    size_t count = latencies.count, p99 = count * 0.99;
    qsort(latencies.values, count, sizeof(double), compare);
    printf("\"seconds\": %.9f, \"server_cpu\": %.9f, \"generator_cpu\": %.9f",
           window->began, window->server_cpu, window->generator_cpu);
    if (count)
        printf(", \"p50\": %.6f, \"p99\": %.6f",
           1000 * latencies.values[count / 2],
           1000 * latencies.values[p99 < count ? p99 : count - 1]);
    puts("}");
}

/* Connect from the number's source address; return a non-blocking socket.
   *name_size becomes the size of the user's name in the room. */
static int connect_client(int number, size_t *name_size)
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
    *name_size = strlen("用户") + strlen(inet_ntoa(source.sin_addr)) +
                 snprintf(NULL, 0, "%d", ntohs(source.sin_port));
    return fd;
}

static void watch(int fd, void *owner)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = owner};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        fail("epoll_ctl: %s", strerror(errno));
}

/* Receive into data. Return the size, 0 at EOF, -1 if nothing has arrived.
   With MSG_TRUNC, the kernel counts and discards the bytes, which costs no copy. */
static ssize_t receive(int fd, int flags)
{
    ssize_t size = recv(fd, data, READ_SIZE, flags);
    if (size < 0 && errno != EAGAIN)
        fail("the server closed a client: %s", strerror(errno));
    return size;
}

/* exchange: clients that stay.

   Each sender has one message in transit. Senders and the observer, which is the
   client that joined last, are read when data arrives, and each of their messages is
   compared. The other receivers are read a hundred times a second, and their bytes are
   counted. */

struct client {
    int fd, number;
    bool is_watched;
    size_t prefix_size;  /* of the name before its messages */
    uint64_t got, due;   /* bytes; due when no message is in transit */
    size_t sent;         /* messages in this window */
    size_t echoed;       /* those of them whose echo has arrived */
    size_t observed;     /* those of them that the observer has */
    double *sent_at;
    size_t capacity;
    size_t tail_size;    /* the incomplete message at the end of the data */
    char tail[FRAME_MAX];
};

static struct client *clients, *observer;
static size_t client_count, in_transit;
static double end;

static void send_next(struct client *client)
{
    char message[FRAME_MAX];
    if (client->sent == client->capacity) {
        client->capacity = 2 * client->capacity + 64;
        client->sent_at =
            allocate(client->sent_at, client->capacity * sizeof(double));
    }
    snprintf(message, sizeof message, "%08zu%s<%04d>", client->sent % 100000000,
             FILLING, client->number);
    client->sent_at[client->sent++] = now();
    if (send(client->fd, message, MESSAGE_SIZE, MSG_NOSIGNAL) != MESSAGE_SIZE)
        fail("client %d could not send 32 bytes at once", client->number);
}

static size_t number_at(const char *digits, int count)
{
    size_t number = 0;
    for (; count--; digits++)
        number = 10 * number + (*digits - '0');
    return number;
}

/* Handle a message that a client has received; is_echo: without a name before it. */
static void handle(struct client *client, const char *message, bool is_echo)
{
    size_t number = number_at(message, 8), tag = number_at(message + 27, 4);
    struct client *sender = clients + tag;
    if (memcmp(message + 8, FILLING, 18) || message[26] != '<' || message[31] != '>' ||
        tag >= client_count || number >= sender->sent ||
        (is_echo ? sender != client || number != client->echoed : !observer))
        fail("client %d received a message that was not due: %.32s", client->number,
             message);
    if (observer ? client == observer : is_echo) {
        if (number != sender->observed++)
            fail("message %zu of client %zu is lost or repeated", number, tag);
        add_latency(now() - sender->sent_at[number]);
    }
    if (!is_echo)
        return;
    client->echoed++;
    if (now() < end)
        send_next(client);
    else
        in_transit--;
}

static void split_messages(struct client *client, size_t size)
{
    const char *next = data - client->tail_size, *after = data + size;
    memcpy(data - client->tail_size, client->tail, client->tail_size);
    for (;;) {
        const char *message = next;
        size_t left = after - next;
        if (left && (*next < '0' || *next > '9')) {
            message = memchr(next, ':', left < PREFIX_MAX ? left : PREFIX_MAX);
            if (!message && left >= PREFIX_MAX)
                fail("client %d received no name: %.32s", client->number, next);
            if (!message)
                break;
            message++;
        }
        if (after - message < MESSAGE_SIZE)
            break;
        handle(client, message, message == next);
        next = message + MESSAGE_SIZE;
    }
    client->tail_size = after - next;
    memcpy(client->tail, next, client->tail_size);
}

/* Read a client until it has no more data; return whether it had any. */
static bool read_client(struct client *client)
{
    bool any = false;
    int flags = client->is_watched ? 0 : MSG_TRUNC;
    ssize_t size = READ_SIZE;
    while (size == READ_SIZE && (size = receive(client->fd, flags)) >= 0) {
        if (!size)
            fail("the server closed client %d after %lu bytes", client->number,
                 client->got);
        any = true;
        client->got += size;
        if (client->is_watched)
            split_messages(client, size);
    }
    return any;
}

static void set_watched(struct client *client, bool is_watched)
{
    if (client->is_watched == is_watched)
        return;
    client->is_watched = is_watched;
    if (is_watched)
        watch(client->fd, client);
    else
        epoll_ctl(epoll, EPOLL_CTL_DEL, client->fd, NULL);
}

/* Wait until no message is in transit. */
static void run_window(void)
{
    struct epoll_event events[EVENTS];
    size_t receiver = 0;
    size_t part = observer ? (client_count + SWEEP_PARTS - 1) / SWEEP_PARTS : 0;
    double next_sweep = now(), last_arrival = next_sweep;
    while (in_transit) {
        int count = epoll_wait(epoll, events, EVENTS, 1);
        for (int each = 0; each < count; each++)
            read_client(events[each].data.ptr);
        double time = now();
        if (count > 0)
            last_arrival = time;
        else if (time - last_arrival > stall)
            fail("an echo did not arrive within %g s", stall);
        if (time < next_sweep)
            continue;
        next_sweep = time + 0.001;
        for (size_t each = 0; each < part; each++) {
            struct client *client = clients + receiver++ % client_count;
            if (!client->is_watched)
                read_client(client);
        }
    }
}

/* Read until each client has all bytes that are due. */
static void wait_for_all(void)
{
    uint64_t everything = 0;
    struct client *after = clients + client_count, *each;
    for (each = clients; each < after; each++)
        everything += each->sent * (MESSAGE_SIZE + each->prefix_size);
    for (each = clients; each < after; each++)
        each->due += observer ? everything - each->sent * each->prefix_size
                              : each->sent * MESSAGE_SIZE;
    double last_arrival = now();
    for (each = clients; each < after; each++) {
        while (each->got < each->due) {
            if (read_client(each))
                last_arrival = now();
            else if (now() - last_arrival > stall)
                fail("client %d received %lu of %lu bytes, and no more within %g s",
                     each->number, each->got, each->due, stall);
            else
                pause_for(0.0002);
        }
        if (each->got > each->due)
            fail("client %d got %lu bytes where %lu were due", each->number, each->got,
                 each->due);
    }
}

/* Let the senders send, then wait until every client has all messages. */
static void exchange(struct client *senders, size_t count, bool is_room, double seconds)
{
    size_t sent = 0, before = latencies.count;
    observer = is_room ? clients + client_count - 1 : NULL;
    for (size_t each = 0; each < client_count; each++)
        clients[each].sent = clients[each].echoed = clients[each].observed = 0;
    for (size_t each = 0; each < count; each++)
        set_watched(senders + each, true);
    if (observer)
        set_watched(observer, true);
    end = now() + seconds;
    in_transit = count;
    for (size_t each = 0; each < count; each++)
        send_next(senders + each);
    run_window();
    wait_for_all();
    for (size_t each = 0; each < count; each++) {
        sent += senders[each].sent;
        set_watched(senders + each, false);
    }
    if (observer)
        set_watched(observer, false);
    if (latencies.count - before != sent)
        fail("the observer received %zu whole messages of %zu",
             latencies.count - before, sent);
}

static void join(size_t count, bool is_room)
{
    clients = allocate(NULL, count * sizeof *clients);
    while (client_count < count) {
        struct client *client = clients + client_count;
        *client = (struct client){.number = client_count++};
        client->fd = connect_client(client->number, &client->prefix_size);
        client->prefix_size += strlen(" 说:");
        if (client_count % PACE == 0 || client_count == count)
            exchange(client, 1, is_room, 0);
    }
}

static uint64_t got_by_all(void)
{
    uint64_t got = 0;
    for (size_t each = 0; each < client_count; each++)
        got += clients[each].got;
    return got;
}

static void check_silence(void)
{
    pause_for(SILENCE);
    for (size_t each = 0; each < client_count; each++) {
        ssize_t size = receive(clients[each].fd, 0);
        if (size >= 0)
            fail("client %zu got %.*s after all that was due", each, (int)size, data);
    }
}

static void run_exchange(int pid, double warm_up, double seconds, long numbers[3])
{
    bool is_room = numbers[2];
    size_t senders = numbers[1];
    join(numbers[0], is_room);
    exchange(clients, senders, is_room, warm_up);
    uint64_t before = got_by_all();
    struct window window = open_window(pid);
    exchange(clients, senders, is_room, seconds);
    close_window(&window);
    uint64_t got = got_by_all() - before;
    check_silence();
    size_t messages = latencies.count;
    printf("{\"messages\": %zu, \"deliveries\": %zu, \"bytes\": %lu, ", messages,
           messages * (is_room ? client_count : 1), got);
    print_window(&window);
}

/* visits: connect, send one message, receive the echo, send "out", wait for EOF.

   A visitor leaves when INSIDE others have joined after it. With an observer, it must
   receive the message and the last message of each visitor. Without one, a visitor must
   receive its echo and nothing else. */

struct visit {
    int fd;
    char text[32];
    double since, waited;
    size_t size;
    char received[VISIT_MAX];
};

static struct visit **inside; /* a queue */
static size_t inside_first, inside_count, visit_count, begun;
static uint64_t observed, observed_due, received_by_visitors;
static int observer_fd = -1;

static void begin_visit(struct visit *visit)
{
    size_t name_size;
    visit->since = now();
    visit->waited = visit->size = 0;
    visit->fd = connect_client(++begun % 100000000, &name_size);
    size_t size = snprintf(visit->text, sizeof visit->text,
                           "%08zu will leave me < >", begun % 100000000);
    if (send(visit->fd, visit->text, size, MSG_NOSIGNAL) != (ssize_t)size)
        fail("a visitor could not send its message");
    watch(visit->fd, visit);
    size_t prefix = name_size + strlen(" 说:");
    observed_due += prefix + size + prefix + name_size + strlen("退出聊天");
    visit_count++;
}

static void end_visit(struct visit *visit)
{
    size_t text_size = strlen(visit->text);
    char *after = visit->received + visit->size;
    char *text = memmem(visit->received, visit->size, visit->text, text_size);
    bool is_known = text && (observer_fd >= 0 || visit->size == text_size);
    /* Members receive each other's messages, but each its own only once. */
    if (is_known && observer_fd >= 0) {
        char *rest = text + text_size;
        is_known = !memmem(rest, after - rest, visit->text, text_size);
    }
    if (!visit->waited || !is_known)
        fail("a visit has ended with %.*s", (int)visit->size, visit->received);
    add_latency(visit->waited + now() - visit->since);
    received_by_visitors += visit->size;
    close(visit->fd);
    visit_count--;
}

/* Receive data of a visit; return whether the visit has ended. */
static bool read_visit(struct visit *visit, size_t slots)
{
    ssize_t size = receive(visit->fd, 0);
    if (size < 0)
        return false;
    if (!size) {
        end_visit(visit);
        return true;
    }
    if (visit->size + size > VISIT_MAX)
        fail("a visitor received more than %d bytes", VISIT_MAX);
    memcpy(visit->received + visit->size, data, size);
    visit->size += size;
    if (!visit->waited &&
        memmem(visit->received, visit->size, visit->text, strlen(visit->text))) {
        visit->waited = now() - visit->since;
        inside[(inside_first + inside_count++) % slots] = visit;
    }
    return false;
}

static void leave_first(size_t slots)
{
    struct visit *visit = inside[inside_first % slots];
    inside_first++;
    inside_count--;
    visit->since = now();
    if (send(visit->fd, "out", 3, MSG_NOSIGNAL) != 3)
        fail("a visitor could not send out");
}

static void read_observer(void)
{
    ssize_t size = receive(observer_fd, 0);
    if (!size)
        fail("the server closed the observer");
    observed += size > 0 ? size : 0;
}

/* Let visitors join for some seconds, and wait until the last one has left. */
static void visit(struct visit *visits, size_t slots, size_t most_inside,
                  double seconds)
{
    struct epoll_event events[EVENTS];
    for (size_t each = 0; each < slots; each++)
        begin_visit(visits + each);
    double end = now() + seconds;
    while (visit_count || (observer_fd >= 0 && observed < observed_due)) {
        int count = epoll_wait(epoll, events, EVENTS, stall * 1000);
        if (count == 0)
            fail("no data for %g s, with %zu visits and %ld bytes for the observer "
                 "outstanding",
                 stall, visit_count, (long)(observed_due - observed));
        bool is_over = now() >= end;
        for (int each = 0; each < count; each++) {
            struct visit *visit = events[each].data.ptr;
            if (!visit)
                read_observer();
            else if (read_visit(visit, slots) && !is_over)
                begin_visit(visit);
        }
        while (inside_count > (is_over ? 0 : most_inside))
            leave_first(slots);
    }
    if (observer_fd >= 0 && observed > observed_due)
        fail("the observer received %lu bytes, but %lu were due", observed,
             observed_due);
}

static void run_visits(int pid, double warm_up, double seconds, long numbers[3])
{
    size_t slots = numbers[0], name_size;
    struct visit *visits = allocate(NULL, slots * sizeof *visits);
    inside = allocate(NULL, slots * sizeof *inside);
    if (numbers[2]) {
        observer_fd = connect_client(0, &name_size);
        watch(observer_fd, NULL);
    }
    visit(visits, slots, numbers[1], warm_up);
    uint64_t observed_before = observed, visitors_before = received_by_visitors;
    struct window window = open_window(pid);
    visit(visits, slots, numbers[1], seconds);
    close_window(&window);
    pause_for(SILENCE);
    if (observer_fd >= 0 && receive(observer_fd, 0) >= 0)
        fail("the observer received more than was due");
    printf("{\"deliveries\": %zu, \"bytes\": %lu, \"bytes_of_visitors\": %lu, ",
           latencies.count, observed - observed_before,
           received_by_visitors - visitors_before);
    print_window(&window);
}

/* flood: one client sends without a pause, and all receive.

   The server's reads cut the messages anywhere, so the number of names in a receiver's
   data is unknown. The last byte of a message occurs nowhere else and is counted. */

struct receiver {
    int fd;
    uint64_t size, messages;
};

static uint64_t flood_sent; /* bytes */

/* Wait at most stall seconds for data, and receive it; return whether any came. */
static bool read_receivers(bool may_wait)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, may_wait ? stall * 1000 : 0);
    for (int each = 0; each < count; each++) {
        struct receiver *receiver = events[each].data.ptr;
        ssize_t size = receive(receiver->fd, 0);
        if (!size)
            fail("the server closed a client");
        const char *next = data, *after = data + (size > 0 ? size : 0);
        receiver->size += after - next;
        while ((next = memchr(next, '>', after - next))) {
            receiver->messages++;
            next++;
        }
    }
    return count > 0;
}

static void wait_for_messages(struct receiver *all, size_t count, uint64_t messages)
{
    for (size_t each = 0; each < count; each++)
        while (all[each].messages < messages)
            if (!read_receivers(true))
                fail("%lu of %lu messages arrived, and no more within %g s",
                     all[each].messages, messages, stall);
}

/* Send for some seconds, and wait until every client has all messages. */
static void flood(struct receiver *all, size_t count, const char *block, double seconds)
{
    double end = now() + seconds;
    bool is_over;
    /* A message that has begun is sent to its end. */
    while (!(is_over = now() >= end) || flood_sent % FLOOD_SIZE) {
        size_t begin = flood_sent % FLOOD_SIZE;
        size_t size = FLOOD_TRANSIT - (flood_sent - all->size);
        if (is_over && size > FLOOD_SIZE - begin)
            size = FLOOD_SIZE - begin;
        ssize_t sent = size ? send(all->fd, block + begin, size, MSG_NOSIGNAL) : 0;
        if (sent < 0 && errno != EAGAIN)
            fail("the server closed the sender: %s", strerror(errno));
        flood_sent += sent > 0 ? sent : 0;
        bool is_due = flood_sent > all->size;
        if (!read_receivers(is_due) && is_due)
            fail("no echo within %g s", stall);
    }
    wait_for_messages(all, count, flood_sent / FLOOD_SIZE);
}

static void run_flood(int pid, double warm_up, double seconds, long numbers[3])
{
    size_t count = numbers[0], prefix_size = 0;
    struct receiver *all = calloc(count, sizeof *all);
    char *block = allocate(NULL, FLOOD_TRANSIT + FLOOD_SIZE);
    if (!all || !count)
        fail("flood needs memory and a client");
    for (size_t each = 0; each < FLOOD_TRANSIT + FLOOD_SIZE; each++)
        block[each] = "still water "[each % FLOOD_SIZE % 12];
    for (size_t each = 0; each < FLOOD_TRANSIT + FLOOD_SIZE; each += FLOOD_SIZE)
        memcpy(block + each + FLOOD_SIZE - 4, "   >", 4);
    for (size_t each = count; each--;) {
        all[each].fd = connect_client(each, &prefix_size);
        prefix_size += strlen(" 说:");
        watch(all[each].fd, all + each);
    }
    /* The sender, which connected last, was accepted last. */
    if (send(all->fd, block, FLOOD_SIZE, MSG_NOSIGNAL) != FLOOD_SIZE)
        fail("the sender could not send its message");
    wait_for_messages(all, count, 1);
    for (size_t each = 0; each < count; each++)
        all[each].size = all[each].messages = 0;
    flood(all, count, block, warm_up);
    uint64_t got = 0, sent_before = flood_sent;
    for (size_t each = 0; each < count; each++)
        got -= all[each].size;
    struct window window = open_window(pid);
    flood(all, count, block, seconds);
    close_window(&window);
    pause_for(SILENCE);
    if (read_receivers(false))
        fail("data arrived after all that was due");
    for (size_t each = 0; each < count; each++) {
        uint64_t names = all[each].size - flood_sent;
        got += all[each].size;
        if (each ? !names || names % prefix_size : names)
            fail("client %zu: %ld bytes beside the messages are not names of %zu bytes",
                 each, (long)names, prefix_size);
    }
    uint64_t messages = (flood_sent - sent_before) / FLOOD_SIZE;
    printf("{\"messages\": %lu, \"deliveries\": %lu, \"bytes\": %lu, ", messages,
           messages * count, got);
    print_window(&window);
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
    long numbers[3];
    for (int each = 0; each < 3; each++)
        numbers[each] = atol(arguments[7 + each]);
    void (*run)(int, double, double, long[3]) = !strcmp(arguments[1], "exchange")
                                                    ? run_exchange
                                                : !strcmp(arguments[1], "visits")
                                                    ? run_visits
                                                    : run_flood;
    run(atoi(arguments[3]), atof(arguments[5]), atof(arguments[6]), numbers);
    return 0;
}
