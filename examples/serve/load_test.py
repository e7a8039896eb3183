"""Requests a second and waiting times of the service, by the number of clients at once.

    python app.py efficientnet_lite0.sepconv                 # in another terminal
    python load_test.py cat.jpg --seconds 5

Each client sends the picture again as soon as it has its answer. Clients run on the same machine as
the service and take some of its time, most of it for sending. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

_BOUNDARY = "sepconv-load-test"


class Load(NamedTuple):
    """What some clients saw: the seconds of every answer, and how many were no answers."""

    seconds: list[float]
    failures: int
    lasted: float


def form(picture: bytes) -> bytes:
    """The body of a request."""
    head = f"--{_BOUNDARY}\r\nContent-Disposition: form-data; name=picture; filename=p\r\n\r\n"
    return head.encode() + picture + f"\r\n--{_BOUNDARY}--\r\n".encode()


def load(url: str, body: bytes, clients: int, seconds: float) -> Load:
    """Sends requests from some clients at once.

    Args:
        url: of the service.
        body: of every request.
        clients: how many.
        seconds: how long.
    """
    found: list[float] = []
    failures: list[str] = []
    host = urlsplit(url).netloc
    begun = time.perf_counter()

    def client() -> None:
        connection = http.client.HTTPConnection(host, timeout=30)
        headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
        while time.perf_counter() < begun + seconds:
            sent = time.perf_counter()
            try:
                connection.request("POST", "/classify", body, headers)
                response = connection.getresponse()
                response.read()
                reason = "" if response.status == 200 else f"status {response.status}"
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                reason = f"{type(error).__name__}: {error}"
            if reason:
                failures.append(reason)
                time.sleep(0.1)
            else:
                found.append(time.perf_counter() - sent)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for reason in sorted(set(failures)):
        print(f"{reason} ({failures.count(reason)} times)", file=sys.stderr)
    return Load(found, len(failures), time.perf_counter() - begun)


def main() -> int:
    """Returns 0 if all requests were answered, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--seconds", type=float, default=5, help="for each number of clients")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    body = form(options.picture.read_bytes())
    load(options.url, body, 1, 0.5)  # so that what is slow the first time is over
    failed = False
    print("| clients | requests a second | median, ms | 99th percentile, ms |")
    print("| --- | --- | --- | --- |")
    for clients in options.clients:
        said = load(options.url, body, clients, options.seconds)
        failed |= said.failures > 0
        if len(said.seconds) < 2:
            print(f"| {clients} | too few answers | | |")
            continue
        middle = 1e3 * statistics.median(said.seconds)
        late = 1e3 * statistics.quantiles(said.seconds, n=100, method="inclusive")[98]
        rate = len(said.seconds) / said.lasted
        print(f"| {clients} | {rate:.1f} | {middle:.1f} | {late:.1f} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
