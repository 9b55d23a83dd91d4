"""A private host to show and to test vethd in, without touching the real one."""
