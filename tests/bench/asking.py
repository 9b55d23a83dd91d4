"""A program that asks the agent for its status again and again, and tells how long each answer took.

`asking.py SOCKET` prints a line once it has had its first answer, and when its input closes one with all
seconds. A process of its own: in the one that makes namespaces it would wait for that one's work.
"""

import select
import socket
import sys
import time

_PAUSE = 0.005
_REQUEST = b"GET /v1/status HTTP/1.1\r\nHost: vethd\r\nConnection: close\r\n\r\n"


def ask(path: str) -> float:
    begin = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(_REQUEST)
        answer = b""
        while data := client.recv(65536):
            answer += data
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"no answer but {answer[:100]!r}")
    return time.perf_counter() - begin


def main(path: str) -> None:
    took = [ask(path)]
    print("asking", flush=True)
    while not select.select([sys.stdin], [], [], _PAUSE)[0]:
        took.append(ask(path))
    print(*took[1:])


if __name__ == "__main__":
    main(*sys.argv[1:])
