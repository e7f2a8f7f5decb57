/* Visits: connect, send one message, receive the echo, send "out", wait for EOF.

   A visitor leaves when INSIDE others have joined after it. With an observer, it must
   receive the message and the last message of each visitor. Without one, a visitor must
   receive its echo and nothing else. */

#include "generator.h"

/* Bytes that a visitor receives. */
enum { VISIT_MAX = 65536 };

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
    size_t prefix_size;
    visit->since = now();
    visit->waited = visit->size = 0;
    visit->fd = connect_client(++begun % 100000000, &prefix_size);
    size_t size = snprintf(visit->text, sizeof visit->text,
                           "%08zu will leave me < >", begun % 100000000);
    if (send(visit->fd, visit->text, size, MSG_NOSIGNAL) != (ssize_t)size)
        fail("a visitor could not send its message");
    watch(visit->fd, visit);
    observed_due += prefix_size + size;
    observed_due += 2 * prefix_size - strlen(" 说:") + strlen("退出聊天");
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

void run_visits(const struct load *load)
{
    size_t slots = load->sizes[0], most_inside = load->sizes[1], prefix_size;
    struct visit *visits = allocate(NULL, slots * sizeof *visits);
    inside = allocate(NULL, slots * sizeof *inside);
    if (load->sizes[2]) {
        observer_fd = connect_client(0, &prefix_size);
        watch(observer_fd, NULL);
    }
    visit(visits, slots, most_inside, load->warm_up);
    uint64_t observed_before = observed, visitors_before = received_by_visitors;
    open_window(load->pid);
    visit(visits, slots, most_inside, load->seconds);
    close_window();
    wait_for_silence();
    if (observer_fd >= 0 && receive(observer_fd, 0) >= 0)
        fail("the observer received more than was due");
    printf("{\"deliveries\": %zu, \"bytes\": %lu, \"bytes_of_visitors\": %lu, ",
           latency_count(), observed - observed_before,
           received_by_visitors - visitors_before);
    print_window();
}
