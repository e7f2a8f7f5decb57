/* Shared by the kinds of load: connections, figures, errors. */

#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_SIZE = 65536, TAIL_MAX = 64, EVENTS = 1024 };

/* What to run, from the command line; sizes: three numbers of the kind of load. */
struct load {
    int pid;
    double warm_up, seconds;
    size_t sizes[3];
};

void run_exchange(const struct load *load);
void run_visits(const struct load *load);
void run_flood(const struct load *load);

/* Seconds after which data that is due is lost. */
extern double stall;

/* The descriptor of the epoll instance. */
extern int epoll;

/* The last received data, with TAIL_MAX bytes of room before it. */
extern char *const data;

/* Print an error, and exit. */
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *form, ...);

/* Return the time in seconds. */
double now(void);

/* Wait until a server would have sent data that is not due. */
void wait_for_silence(void);

/* realloc() that does not return NULL. */
void *allocate(void *old, size_t size);

/* Connect from the number's source address; return a non-blocking socket.
   *prefix_size becomes the size of what precedes the client's messages in the room. */
int connect_client(int number, size_t *prefix_size);

/* Register a descriptor; its events have the owner as data.ptr. */
void watch(int fd, void *owner);

/* Receive into data. Return the size, 0 at EOF, -1 if nothing has arrived.
   With MSG_TRUNC, the kernel counts and discards the bytes, which costs no copy. */
ssize_t receive(int fd, int flags);

/* Record the latency of a message in seconds. */
void add_latency(double seconds);

/* Return the number of latencies recorded in this window. */
size_t latency_count(void);

/* The window: it forgets the latencies before it, and takes the time and the CPU time
   of the server and of this process. Print its figures after it is closed. */
void open_window(int pid);
void close_window(void);
void print_window(void);
