/* Clients that stay.

   Each sender has one message in transit. Senders and the observer, which is the
   client that joined last, are read when data arrives, and each of their messages is
   compared. The other receivers are read a hundred times a second, and their bytes are
   counted. */

#include "generator.h"
#include <sys/timerfd.h>

enum {
    MESSAGE_SIZE = 32,
    PREFIX_MAX = 32,  /* a name and " 说:" */
    PACE = 500,       /* clients that join at once */
    SWEEP_PARTS = 10, /* each millisecond, one of these parts is read */
};

static const char FILLING[] = " will be repeated ";

struct client {
    int fd, number;
    bool is_watched;
    size_t prefix_size;  /* of the name before its messages */
    uint64_t got, due;   /* bytes; due when no message is in transit */
    size_t sent;         /* messages in this window */
    size_t echoed;       /* those of them whose echo has arrived */
    size_t observed;     /* those of them that the observer has */
    char message[MESSAGE_SIZE + 64]; /* the last one sent */
    double *sent_at;
    size_t capacity;
    size_t tail_size;    /* the incomplete message at the end of the data */
    char tail[TAIL_MAX];
};

static struct client *clients, *observer;
static size_t client_count, in_transit;
static double arrival; /* the time of the last data */
static double end;     /* the time after which senders stop */

static void send_next(struct client *client)
{
    if (client->sent == client->capacity) {
        client->capacity = 2 * client->capacity + 64;
        client->sent_at =
            allocate(client->sent_at, client->capacity * sizeof(double));
    }
    /* The number of the first message is 0. */
    for (char *digit = client->message + 7; client->sent && ++*digit > '9'; digit--)
        *digit = '0';
    client->sent_at[client->sent++] = now();
    if (send(client->fd, client->message, MESSAGE_SIZE, MSG_NOSIGNAL) != MESSAGE_SIZE)
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
        add_latency(arrival - sender->sent_at[number]);
    }
    if (!is_echo)
        return;
    client->echoed++;
    if (arrival < end)
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
        if (!client->is_watched)
            continue;
        arrival = now();
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

/* Read the next part of the receivers. */
static void sweep(void)
{
    static size_t next;
    for (size_t each = 0; each <= client_count / SWEEP_PARTS; each++) {
        struct client *client = clients + next++ % client_count;
        if (!client->is_watched)
            read_client(client);
    }
}

/* Wait until no message is in transit. A timer costs less than a timeout of each wait. */
static void run_window(void)
{
    struct epoll_event events[EVENTS];
    double interval = observer ? 0.001 : 0.05, silence = 0;
    struct timespec tick = {0, interval * 1e9};
    struct itimerspec ticks = {tick, tick};
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    timerfd_settime(timer, 0, &ticks, NULL);
    watch(timer, NULL);
    while (in_transit) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int each = 0; each < count; each++) {
            struct client *client = events[each].data.ptr;
            silence = client ? 0 : silence + interval;
            if (client)
                read_client(client);
            else if (read(timer, data, sizeof(uint64_t)) > 0 && observer)
                sweep();
        }
        if (silence > stall)
            fail("an echo did not arrive within %g s", stall);
    }
    close(timer);
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
                usleep(200);
        }
        if (each->got > each->due)
            fail("client %d got %lu bytes where %lu were due", each->number, each->got,
                 each->due);
    }
}

/* Let the senders send, then wait until every client has all messages. */
static void exchange(struct client *senders, size_t count, bool is_room, double seconds)
{
    size_t sent = 0, before = latency_count();
    observer = is_room ? clients + client_count - 1 : NULL;
    for (size_t each = 0; each < client_count; each++) {
        struct client *client = clients + each;
        client->sent = client->echoed = client->observed = 0;
        snprintf(client->message, sizeof client->message, "%08d%s<%04zu>", 0, FILLING,
                 each);
    }
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
    if (latency_count() - before != sent)
        fail("the observer received %zu whole messages of %zu",
             latency_count() - before, sent);
}

static void join(size_t count, bool is_room)
{
    clients = allocate(NULL, count * sizeof *clients);
    while (client_count < count) {
        struct client *client = clients + client_count;
        *client = (struct client){.number = client_count++};
        client->fd = connect_client(client->number, &client->prefix_size);
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
    wait_for_silence();
    for (size_t each = 0; each < client_count; each++) {
        ssize_t size = receive(clients[each].fd, 0);
        if (size >= 0)
            fail("client %zu got %.*s after all that was due", each, (int)size, data);
    }
}

void run_exchange(const struct load *load)
{
    size_t senders = load->sizes[1];
    bool is_room = load->sizes[2];
    join(load->sizes[0], is_room);
    exchange(clients, senders, is_room, load->warm_up);
    uint64_t before = got_by_all();
    open_window(load->pid);
    exchange(clients, senders, is_room, load->seconds);
    close_window();
    uint64_t got = got_by_all() - before;
    check_silence();
    size_t messages = latency_count();
    printf("{\"messages\": %zu, \"deliveries\": %zu, \"bytes\": %lu, ", messages,
           messages * (is_room ? client_count : 1), got);
    print_window();
}
