/* Nothing but epoll, in C: the limit of a server on this kernel.

   epoll PROTOCOL VARIANT LISTENER

   LISTENER is the descriptor of a listening socket.

   The messages of one turn form a log: for each, its sender's prefix and its text. Every
   client is sent the log, but of its own message only the text. The variant "coalescing"
   sends the log at the end of a turn, "at once" after each message. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 1024, READ_SIZE = 65536, MOST_CLIENTS = 1 << 20 };

struct client {
    int fd;
    bool is_sender, is_leaving; /* in this turn; it has sent "out" */
    size_t place;               /* in members */
    size_t name_size, prefix_size;
    char prefix[64];
    size_t own, text, end;      /* in the log: its message, the text and end of that */
    char *unsent;
    size_t unsent_size;
};

static int epoll;
static bool in_room, broadcasts;
static struct client *members[MOST_CLIENTS], *senders[EVENTS];
static size_t member_count, sender_count, log_size, log_capacity;
static char *log_data;

static void want(struct client *client, int operation, unsigned events)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    epoll_ctl(epoll, operation, client->fd, &event);
}

/* Close a client. No later event of the turn is its own: it has had that. */
static void close_client(struct client *client)
{
    members[client->place] = members[--member_count];
    members[client->place]->place = client->place;
    close(client->fd);
    free(client->unsent);
    free(client);
}

/* Send unsent data and two parts of the log, and keep the rest; return whether the
   client is still open. */
static bool send_parts(struct client *client, size_t first, size_t begin, size_t end)
{
    struct iovec parts[] = {{client->unsent, client->unsent_size},
                            {log_data, first},
                            {log_data + begin, end - begin}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    size_t size = client->unsent_size + first + end - begin;
    ssize_t sent = size ? sendmsg(client->fd, &message, MSG_NOSIGNAL) : 0;
    bool was_blocked = client->unsent_size, is_blocked = sent < (ssize_t)size;
    sent = sent < 0 ? 0 : sent; /* after an error, recv() returns it */
    if (!is_blocked && client->is_leaving) {
        close_client(client);
        return false;
    }
    if (was_blocked || is_blocked) {
        char *all = malloc(size), *next = all;
        for (int each = 0; each < 3; each++)
            next = mempcpy(next, parts[each].iov_base, parts[each].iov_len);
        client->unsent_size = size - sent;
        memmove(all, all + sent, client->unsent_size);
        free(client->unsent);
        client->unsent = all;
    }
    if (was_blocked != is_blocked)
        want(client, EPOLL_CTL_MOD, EPOLLIN | (is_blocked ? EPOLLOUT : 0));
    return true;
}

/* Send the log: first to the senders, which answer while others are being sent to. */
static void flush(void)
{
    if (!sender_count)
        return;
    for (size_t each = 0; each < sender_count; each++) {
        struct client *sender = senders[each];
        size_t first = broadcasts ? sender->own : 0;
        size_t end = broadcasts && !sender->is_leaving ? log_size : sender->end;
        send_parts(sender, first, sender->text, end);
    }
    for (size_t each = member_count; broadcasts && each--;) {
        struct client *member = members[each];
        if (!member->is_sender && !member->is_leaving)
            send_parts(member, 0, 0, log_size);
        member->is_sender = false;
    }
    log_size = sender_count = 0;
}

static void append(const char *bytes, size_t size)
{
    memcpy(log_data + log_size, bytes, size);
    log_size += size;
}

/* Read a client into the log. */
static void read_client(struct client *client)
{
    if (log_capacity - log_size < READ_SIZE + 512) {
        log_capacity = 2 * log_capacity + READ_SIZE + 512;
        log_data = realloc(log_data, log_capacity);
    }
    char *text = log_data + log_size + client->prefix_size;
    ssize_t size = recv(client->fd, text, READ_SIZE, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0 || client->is_leaving) {
        close_client(client);
        return;
    }
    client->is_leaving = in_room && size >= 3 && !memcmp(text + size - 3, "out", 3);
    size -= client->is_leaving ? 3 : 0;
    client->own = log_size;
    if (size)
        append(client->prefix, client->prefix_size);
    client->text = log_size;
    client->end = log_size += size;
    if (client->is_leaving) {
        append(client->prefix, client->prefix_size);
        append(client->prefix, client->name_size);
        append("退出聊天", strlen("退出聊天"));
    }
    client->is_sender = true;
    senders[sender_count++] = client;
}

/* Accept a connection; return whether there was one. */
static bool accept_client(int listener)
{
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    int fd = accept4(listener, (struct sockaddr *)&address, &size, SOCK_NONBLOCK);
    if (fd < 0)
        return false;
    struct client *client = calloc(1, sizeof *client);
    client->fd = fd;
    client->name_size =
        sprintf(client->prefix, "用户%s%d", inet_ntoa(address.sin_addr),
                ntohs(address.sin_port));
    client->prefix_size =
        client->name_size + sprintf(client->prefix + client->name_size, " 说:");
    client->place = member_count;
    members[member_count++] = client;
    want(client, EPOLL_CTL_ADD, EPOLLIN);
    return true;
}

/* One turn: read, and send the log. */
static void turn(int listener, bool coalesces)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, -1);
    for (int each = 0; each < count; each++) {
        struct client *client = events[each].data.ptr;
        unsigned event = events[each].events;
        if (!client)
            /* To coalesce, all: they are sent to together. Else one, as a second
               attempt would fail most times. */
            while (accept_client(listener) && coalesces)
                continue;
        else if ((!(event & EPOLLOUT) || send_parts(client, 0, 0, 0)) &&
                 event != EPOLLOUT)
            read_client(client);
        if (!coalesces)
            flush();
    }
    flush();
}

int main(int count, char **arguments)
{
    if (count != 4)
        return 2;
    in_room = strcmp(arguments[1], "echo");
    broadcasts = !strcmp(arguments[1], "room");
    int listener = atoi(arguments[3]);
    struct epoll_event event = {.events = EPOLLIN};
    epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;)
        turn(listener, !strcmp(arguments[2], "coalescing"));
}
