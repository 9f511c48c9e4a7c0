/*
 * The floor under the bench: a relay that does nothing but relay.
 *
 *     relay ADDRESS < calls
 *
 * A line of the input is a call: the address and port of its two parties,
 * IPv4, as "127.0.0.2 30000 127.0.0.3 30002". For each it opens two sockets on
 * ADDRESS and answers with a line of their ports; what one party sends to the
 * first goes out to the other party from the second, and the other way round.
 * An empty line ends the input; then it answers "ready" and relays until it is
 * killed.
 *
 * One thread, one epoll descriptor, one recvfrom and one sendto for a packet:
 * no recording, no header rewritten, no RTCP, no check of the source, no count.
 * What a switch costs above this is what it does.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

struct side {
	int fd;
	struct sockaddr_in party; /* who talks to this socket */
	struct side *other;
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void address(struct sockaddr_in *a, const char *host, int port)
{
	memset(a, 0, sizeof *a);
	a->sin_family = AF_INET;
	a->sin_port = htons(port);
	if (inet_pton(AF_INET, host, &a->sin_addr) != 1)
		die(host);
}

static int open_side(struct side *s, int poll, const char *host)
{
	struct sockaddr_in at;
	socklen_t size = sizeof at;
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = s };

	address(&at, host, 0);
	s->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	if (s->fd < 0)
		die("socket");
	if (bind(s->fd, (struct sockaddr *)&at, size) < 0)
		die("bind");
	if (getsockname(s->fd, (struct sockaddr *)&at, &size) < 0)
		die("getsockname");
	if (epoll_ctl(poll, EPOLL_CTL_ADD, s->fd, &e) < 0)
		die("epoll_ctl");
	return ntohs(at.sin_port);
}

int main(int argc, char **argv)
{
	static struct epoll_event events[128];
	static char buf[2048], line[256];
	struct rlimit files;
	int poll = epoll_create1(0);

	if (argc != 2) {
		fprintf(stderr, "usage: relay ADDRESS < calls\n");
		return 2;
	}
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (poll < 0)
		die("epoll_create1");
	while (fgets(line, sizeof line, stdin) && line[0] != '\n') {
		char host[2][64];
		int port[2];
		struct side *s = calloc(2, sizeof *s);

		if (!s || sscanf(line, "%63s %d %63s %d", host[0], &port[0], host[1], &port[1]) != 4)
			die("read a call");
		for (int i = 0; i < 2; i++) {
			address(&s[i].party, host[i], port[i]);
			s[i].other = &s[1 - i];
			port[i] = open_side(&s[i], poll, argv[1]);
		}
		printf("%d %d\n", port[0], port[1]);
		fflush(stdout);
	}
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(poll, events, sizeof events / sizeof *events, -1);

		for (int i = 0; i < n; i++) {
			struct side *s = events[i].data.ptr;
			struct sockaddr_in from;
			socklen_t size = sizeof from;
			ssize_t got = recvfrom(s->fd, buf, sizeof buf, 0, (struct sockaddr *)&from, &size);

			if (got > 0)
				sendto(s->other->fd, buf, got, 0, (struct sockaddr *)&s->other->party, sizeof s->other->party);
		}
	}
}
