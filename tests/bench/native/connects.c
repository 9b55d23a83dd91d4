/*
 * How long it takes to open and reset TCP connections, one after the other.
 *
 * connects CLIENT_NETNS SERVER_NETNS ADDRESS PORT COUNT
 *
 * Listens on ADDRESS and PORT in the one namespace, connects COUNT times from the other, prints the
 * nanoseconds. One thread is both ends: the kernel passes packets over veth within the system call, so this
 * is the work that a connection takes, and no other process has to be scheduled for it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "refuse.h"

static void check(int good, const char *what)
{
	if (!good) {
		perror(what);
		exit(1);
	}
}

static void enter(const char *path)
{
	int netns = open(path, O_RDONLY | O_CLOEXEC);

	check(netns >= 0, path);
	check(!setns(netns, CLONE_NEWNET), "setns");
	close(netns);
}

static int listen_on(const struct sockaddr_in *where)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;

	check(!setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes), "setsockopt");
	check(!bind(listener, (const void *)where, sizeof *where), "bind");
	check(!listen(listener, 128), "listen");
	return listener;
}

/* Reset, as a closed connection would be remembered for a minute (TIME_WAIT). */
static void connect_once(const struct sockaddr_in *where, int listener)
{
	struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	int client = socket(AF_INET, SOCK_STREAM, 0), server;

	check(!setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), "setsockopt");
	check(!connect(client, (const void *)where, sizeof *where), "connect");
	server = accept(listener, NULL, NULL);
	check(server >= 0, "accept");
	close(client);
	close(server);
}

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int count, char **arguments)
{
	struct sockaddr_in where = { .sin_family = AF_INET };
	int listener, left;
	long long begin;

	if (count != 6 || inet_pton(AF_INET, arguments[3], &where.sin_addr) != 1) {
		fputs("usage: connects CLIENT_NETNS SERVER_NETNS ADDRESS PORT COUNT\n", stderr);
		return 2;
	}
	where.sin_port = htons(atoi(arguments[4]));
	enter(arguments[2]);
	listener = listen_on(&where);
	enter(arguments[1]);
	if (in_initial_namespace()) {
		fputs("connects: not from the initial network namespace\n", stderr);
		return 2;
	}
	/* The first one may have to find out who its neighbours are. */
	connect_once(&where, listener);
	begin = now();
	for (left = atoi(arguments[5]); left > 0; left--)
		connect_once(&where, listener);
	printf("%lld\n", now() - begin);
	return 0;
}
