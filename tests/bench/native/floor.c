/*
 * The least work that networks a namespace: what the kernel itself takes, asked for by raw netlink.
 *
 * floor BRIDGE GATEWAY4 PREFIX4 GATEWAY6 PREFIX6
 *
 * Each line of input is one namespace: PATH HOST_END ADDRESS4 ADDRESS6 SHAPE. SHAPE "port" makes the
 * host end a port of the bridge, "routed" has the host route both addresses to it. The answer is
 * a line: the nanoseconds that it took, or what failed. Two datagrams do it all: one in the host,
 * one inside, where the device is made already, so that nothing is moved or renamed.
 *
 * rtnetlink(7), include/uapi/linux/{if_link,veth,rtnetlink}.h
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "refuse.h"

#define DEVICE "eth0"
#define LOOPBACK_INDEX 1

struct network {
	int bridge;
	struct in_addr gateway4;
	struct in6_addr gateway6;
	int prefix4, prefix6;
};

struct batch {
	char data[4096] __attribute__((aligned(NLMSG_ALIGNTO)));
	size_t length;
	struct nlmsghdr *message;
	unsigned messages;
};

static const char *failed;

static int fail(const char *what)
{
	failed = what;
	return -1;
}

static void begin(struct batch *batch, int kind, int flags, const void *header, size_t length)
{
	struct nlmsghdr *message = (void *)(batch->data + batch->length);

	batch->messages++;
	*message = (struct nlmsghdr){
		.nlmsg_len = NLMSG_LENGTH(length),
		.nlmsg_type = kind,
		.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags,
		.nlmsg_seq = batch->messages,
	};
	memcpy(NLMSG_DATA(message), header, length);
	batch->message = message;
	batch->length += NLMSG_ALIGN(message->nlmsg_len);
}

static struct rtattr *put(struct batch *batch, int kind, const void *value, size_t length)
{
	struct rtattr *attribute = (void *)(batch->data + batch->length);

	*attribute = (struct rtattr){ .rta_type = kind, .rta_len = RTA_LENGTH(length) };
	if (length)
		memcpy(RTA_DATA(attribute), value, length);
	batch->length += RTA_ALIGN(attribute->rta_len);
	batch->message->nlmsg_len = batch->data + batch->length - (char *)batch->message;
	return attribute;
}

static void put_number(struct batch *batch, int kind, unsigned value)
{
	put(batch, kind, &value, sizeof value);
}

static void end(struct batch *batch, struct rtattr *nest)
{
	nest->rta_len = batch->data + batch->length - (char *)nest;
}

/* All messages of a batch, and their acknowledgements: the first failure ends it. */
static int exchange(int netlink, struct batch *batch)
{
	char answers[16384] __attribute__((aligned(NLMSG_ALIGNTO)));
	unsigned acknowledged = 0;

	if (send(netlink, batch->data, batch->length, 0) < 0)
		return fail("send");
	while (acknowledged < batch->messages) {
		ssize_t length = recv(netlink, answers, sizeof answers, 0);
		struct nlmsghdr *message = (void *)answers;

		if (length < 0)
			return fail("receive");
		for (; NLMSG_OK(message, length); message = NLMSG_NEXT(message, length)) {
			struct nlmsgerr *verdict = NLMSG_DATA(message);

			if (message->nlmsg_type != NLMSG_ERROR)
				continue;
			if (verdict->error) {
				errno = -verdict->error;
				return fail("netlink");
			}
			acknowledged++;
		}
	}
	return 0;
}

static int index_of(int any_socket, const char *device)
{
	struct ifreq request = { 0 };

	strncpy(request.ifr_name, device, IFNAMSIZ - 1);
	return ioctl(any_socket, SIOCGIFINDEX, &request) ? -1 : request.ifr_ifindex;
}

static void create_pair(struct batch *batch, const char *host_end, int netns)
{
	struct ifinfomsg none = { .ifi_family = AF_UNSPEC };
	struct rtattr *info, *data, *peer;

	begin(batch, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &none, sizeof none);
	put(batch, IFLA_IFNAME, host_end, strlen(host_end) + 1);
	info = put(batch, IFLA_LINKINFO, NULL, 0);
	put(batch, IFLA_INFO_KIND, "veth", strlen("veth"));
	data = put(batch, IFLA_INFO_DATA, NULL, 0);
	peer = put(batch, VETH_INFO_PEER, &none, sizeof none);
	put(batch, IFLA_IFNAME, DEVICE, sizeof DEVICE);
	put_number(batch, IFLA_NET_NS_FD, netns);
	end(batch, peer);
	end(batch, data);
	end(batch, info);
}

/* Without a link-local address: its multicast would be flooded to every port of the bridge. */
static void raise_device(struct batch *batch, const char *device, int bridge)
{
	struct ifinfomsg up = { .ifi_family = AF_UNSPEC, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
	unsigned char none = IN6_ADDR_GEN_MODE_NONE;
	struct rtattr *families, *inet6;

	begin(batch, RTM_NEWLINK, 0, &up, sizeof up);
	put(batch, IFLA_IFNAME, device, strlen(device) + 1);
	families = put(batch, IFLA_AF_SPEC, NULL, 0);
	inet6 = put(batch, AF_INET6, NULL, 0);
	put(batch, IFLA_INET6_ADDR_GEN_MODE, &none, sizeof none);
	end(batch, inet6);
	end(batch, families);
	if (bridge)
		put_number(batch, IFLA_MASTER, bridge);
}

static void add_address(struct batch *batch, int device, int family, const void *address, int prefix, unsigned flags)
{
	struct ifaddrmsg about = { .ifa_family = family, .ifa_prefixlen = prefix, .ifa_index = device };
	size_t length = family == AF_INET ? 4 : 16;

	begin(batch, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &about, sizeof about);
	put(batch, IFA_LOCAL, address, length);
	put(batch, IFA_ADDRESS, address, length);
	put_number(batch, IFA_FLAGS, flags);
}

/* To one address of a device, or by default through a gateway. */
static void add_route(struct batch *batch, int device, int family, const void *address, const void *gateway, int flags)
{
	size_t length = family == AF_INET ? 4 : 16;
	struct rtmsg about = {
		.rtm_family = family,
		.rtm_dst_len = address ? 8 * length : 0,
		.rtm_table = RT_TABLE_MAIN,
		.rtm_protocol = RTPROT_BOOT,
		.rtm_scope = gateway || family == AF_INET6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
		.rtm_type = RTN_UNICAST,
		.rtm_flags = flags,
	};

	begin(batch, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &about, sizeof about);
	if (address)
		put(batch, RTA_DST, address, length);
	if (gateway)
		put(batch, RTA_GATEWAY, gateway, length);
	put_number(batch, RTA_OIF, device);
}

static int socket_inside(int netns, int home)
{
	int netlink;

	if (setns(netns, CLONE_NEWNET))
		return fail("enter the namespace");
	netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (setns(home, CLONE_NEWNET))
		abort();
	return netlink < 0 ? fail("socket inside") : netlink;
}

static int inside(const struct network *network, int netlink, const struct in_addr *four, const struct in6_addr *six,
		  int routed)
{
	int device = index_of(netlink, DEVICE), onlink = routed ? RTNH_F_ONLINK : 0;
	unsigned flags = routed ? IFA_F_NOPREFIXROUTE : 0;
	struct batch batch = { 0 };

	if (device < 0)
		return fail("device inside");
	raise_device(&batch, "lo", 0);
	raise_device(&batch, DEVICE, 0);
	add_address(&batch, device, AF_INET, four, network->prefix4, flags);
	add_address(&batch, device, AF_INET6, six, network->prefix6, flags | IFA_F_NODAD);
	add_route(&batch, device, AF_INET6, NULL, &network->gateway6, onlink);
	add_route(&batch, device, AF_INET, NULL, &network->gateway4, onlink);
	return exchange(netlink, &batch);
}

static int add(const struct network *network, int host, int home, const char *path, const char *host_end,
	       const struct in_addr *four, const struct in6_addr *six, int routed)
{
	int netns = open(path, O_RDONLY | O_CLOEXEC), netlink, result = -1;
	struct batch made = { 0 }, routes = { 0 };

	if (netns < 0)
		return fail("open the namespace");
	create_pair(&made, host_end, netns);
	raise_device(&made, host_end, routed ? 0 : network->bridge);
	netlink = exchange(host, &made) ? -1 : socket_inside(netns, home);
	if (netlink >= 0) {
		if (routed) {
			int index = index_of(host, host_end);

			add_route(&routes, index, AF_INET, four, NULL, 0);
			add_route(&routes, index, AF_INET6, six, NULL, 0);
			result = exchange(host, &routes);
		}
		if (!routed || !result)
			result = inside(network, netlink, four, six, routed);
		close(netlink);
	}
	close(netns);
	return result;
}

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int count, char **arguments)
{
	char line[512], path[256], host_end[IFNAMSIZ], four[64], six[64], shape[16];
	int host, home;
	struct network network;

	if (count != 6 || in_initial_namespace()) {
		fputs("usage: floor BRIDGE GATEWAY4 PREFIX4 GATEWAY6 PREFIX6, never in the initial namespace\n", stderr);
		return 2;
	}
	host = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	network.bridge = index_of(host, arguments[1]);
	network.prefix4 = atoi(arguments[3]);
	network.prefix6 = atoi(arguments[5]);
	if (network.bridge < 0 || inet_pton(AF_INET, arguments[2], &network.gateway4) != 1 ||
	    inet_pton(AF_INET6, arguments[4], &network.gateway6) != 1) {
		fputs("floor: no such bridge, or no address\n", stderr);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof line, stdin)) {
		struct in6_addr address6;
		struct in_addr address4;
		long long start = now();

		if (sscanf(line, "%255s %15s %63s %63s %15s", path, host_end, four, six, shape) != 5 ||
		    inet_pton(AF_INET, four, &address4) != 1 || inet_pton(AF_INET6, six, &address6) != 1)
			puts("failed: not understood");
		else if (add(&network, host, home, path, host_end, &address4, &address6, !strcmp(shape, "routed")))
			printf("failed: %s: %s\n", failed, strerror(errno));
		else
			printf("%lld\n", now() - start);
	}
	return 0;
}
