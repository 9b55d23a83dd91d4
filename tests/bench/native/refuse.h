/* Whether this is the machine's own network namespace, in which nothing is to be changed. */
#include <sys/stat.h>

static int in_initial_namespace(void)
{
	struct stat own, first;

	/* A hardened process 1 does not let itself be looked at; process 2, the kernel's own, never leaves. */
	if (stat("/proc/self/ns/net", &own) || (stat("/proc/1/ns/net", &first) && stat("/proc/2/ns/net", &first)))
		return 1;
	return own.st_ino == first.st_ino;
}
