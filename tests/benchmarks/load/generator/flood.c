/* Flood: one client sends without a pause, and all receive.

   The server's reads cut the messages anywhere, so the number of names in a receiver's
   data is unknown. The last byte of a message occurs nowhere else and is counted. */

#include "generator.h"

enum {
    MESSAGE_SIZE = 1024,
    IN_TRANSIT = 256 * 1024, /* most bytes whose echo has not arrived */
};

struct receiver {
    int fd;
    uint64_t size, messages;
};

static uint64_t bytes_sent;

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
    while (!(is_over = now() >= end) || bytes_sent % MESSAGE_SIZE) {
        if (all->size > bytes_sent)
            fail("the sender received %lu bytes, but sent %lu", all->size, bytes_sent);
        size_t begin = bytes_sent % MESSAGE_SIZE;
        size_t size = IN_TRANSIT - (bytes_sent - all->size);
        if (is_over && size > MESSAGE_SIZE - begin)
            size = MESSAGE_SIZE - begin;
        ssize_t sent = size ? send(all->fd, block + begin, size, MSG_NOSIGNAL) : 0;
        if (sent < 0 && errno != EAGAIN)
            fail("the server closed the sender: %s", strerror(errno));
        bytes_sent += sent > 0 ? sent : 0;
        bool is_due = bytes_sent > all->size;
        if (!read_receivers(is_due) && is_due)
            fail("no echo within %g s", stall);
    }
    wait_for_messages(all, count, bytes_sent / MESSAGE_SIZE);
}

void run_flood(const struct load *load)
{
    size_t count = load->sizes[0], prefix_size = 0;
    struct receiver *all = calloc(count, sizeof *all);
    char *block = allocate(NULL, IN_TRANSIT + MESSAGE_SIZE);
    if (!all || !count)
        fail("flood needs memory and a client");
    for (size_t each = 0; each < IN_TRANSIT + MESSAGE_SIZE; each++)
        block[each] = "still water "[each % MESSAGE_SIZE % 12];
    for (size_t each = 0; each < IN_TRANSIT + MESSAGE_SIZE; each += MESSAGE_SIZE)
        memcpy(block + each + MESSAGE_SIZE - 4, "   >", 4);
    for (size_t each = count; each--;) {
        all[each].fd = connect_client(each, &prefix_size);
        watch(all[each].fd, all + each);
    }
    /* The sender, which connected last, was accepted last. */
    if (send(all->fd, block, MESSAGE_SIZE, MSG_NOSIGNAL) != MESSAGE_SIZE)
        fail("the sender could not send its message");
    wait_for_messages(all, count, 1);
    for (size_t each = 0; each < count; each++)
        all[each].size = all[each].messages = 0;
    flood(all, count, block, load->warm_up);
    uint64_t got = 0, sent_before = bytes_sent;
    for (size_t each = 0; each < count; each++)
        got -= all[each].size;
    open_window(load->pid);
    flood(all, count, block, load->seconds);
    close_window();
    wait_for_silence();
    if (read_receivers(false))
        fail("data arrived after all that was due");
    for (size_t each = 0; each < count; each++) {
        uint64_t names = all[each].size - bytes_sent;
        got += all[each].size;
        if (each ? !names || names % prefix_size : names)
            fail("client %zu: %ld bytes beside the messages are not names of %zu bytes",
                 each, (long)names, prefix_size);
    }
    uint64_t messages = (bytes_sent - sent_before) / MESSAGE_SIZE;
    printf("{\"messages\": %lu, \"deliveries\": %lu, \"bytes\": %lu, ", messages,
           messages * count, got);
    print_window();
}
