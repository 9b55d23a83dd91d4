"""The exit codes of ``vethd``."""

DONE = 0
FAILED = 1
BAD_USAGE = 2  # a wrong command line or a wrong configuration
LEFT_ALONE = 3
AGENT_NOT_RUNNING = 4
