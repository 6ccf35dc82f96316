"""Load for `make demo-cluster`: writes and reads through all nodes, goes to the next when one does not answer, and in the
end reads back everything that was acknowledged.

    demo_load.py run FILE ENDPOINT...      until SIGTERM; FILE gets a line for each acknowledged object
    demo_load.py verify FILE ENDPOINT...   reads each object of FILE back, through each endpoint in turn
"""

import hashlib
import random
import signal
import sys
import threading
import time

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = "demo"
SIZES = [4_000, 100_000, 1_000_000, 4_000_000]
WRITERS = 4
# Failed attempts are counted here, so the client itself does not try again.
CONFIG = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=20)


def client_of(endpoint):
    return boto3.client("s3", endpoint_url=endpoint, config=CONFIG)


def content(seed, size):
    return random.Random(seed).randbytes(size)


class Load:
    def __init__(self, path, endpoints):
        self.file = open(path, "a", encoding="ascii")
        self.endpoints = endpoints
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.written = []
        self.attempts_failed = 0
        self.reads = 0
        self.last_write = time.monotonic()
        self.longest_gap = 0.0
        self.wrong = 0

    def until_done(self, clients, at, operation):
        """Tries endpoint after endpoint until one does it; returns its answer and which it was."""
        for attempt in range(200):
            which = (at + attempt) % len(clients)
            try:
                return operation(clients[which]), which
            except (BotoCoreError, ClientError) as error:
                with self.lock:
                    self.attempts_failed += 1
                if attempt % len(clients) == len(clients) - 1:
                    time.sleep(0.1)
                if attempt == 199:
                    sys.exit(f"not done in 200 attempts: {error}")

    def work(self, writer):
        clients = [client_of(endpoint) for endpoint in self.endpoints]
        picks = random.Random(writer)
        at, number = writer, 0
        while not self.stopping.is_set():
            number += 1
            key, seed, size = f"{writer}/{number:06}", writer * 1_000_000 + number, picks.choice(SIZES)
            body = content(seed, size)
            _, at = self.until_done(clients, at, lambda c: c.put_object(Bucket=BUCKET, Key=key, Body=body))
            with self.lock:
                now = time.monotonic()
                self.longest_gap, self.last_write = max(self.longest_gap, now - self.last_write), now
                self.written.append((key, seed, size))
                self.file.write(f"{key} {seed} {size}\n")
                known = picks.choice(self.written)
            found, at = self.until_done(clients, at, lambda c: c.get_object(Bucket=BUCKET, Key=known[0])["Body"].read())
            with self.lock:
                self.reads += 1
                self.wrong += found != content(known[1], known[2])

    def say(self):
        with self.lock:
            print(
                f"load: {len(self.written)} objects acknowledged, {self.reads} read, {self.attempts_failed} attempts"
                f" failed and made again, longest pause between two writes {self.longest_gap:.2f} s",
                flush=True,
            )
            self.attempts_failed, self.longest_gap = 0, 0.0


def run(path, endpoints):
    load = Load(path, endpoints)
    signal.signal(signal.SIGTERM, lambda *_: load.stopping.set())
    signal.signal(signal.SIGUSR1, lambda *_: threading.Thread(target=load.say).start())
    threads = [threading.Thread(target=load.work, args=(writer,), daemon=True) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    while not load.stopping.is_set() and all(thread.is_alive() for thread in threads):
        time.sleep(0.1)
    is_complete = load.stopping.is_set()
    load.stopping.set()
    for thread in threads:
        thread.join(60)
    load.file.close()
    load.say()
    sys.exit(0 if is_complete and load.wrong == 0 else f"{load.wrong} reads gave wrong bytes; complete: {is_complete}")


def verify(path, endpoints):
    with open(path, encoding="ascii") as file:
        lines = [line.split() for line in file]
    clients = [client_of(endpoint) for endpoint in endpoints]
    digest, total = hashlib.sha256(), 0
    for number, (key, seed, size) in enumerate(lines):
        found = clients[number % len(clients)].get_object(Bucket=BUCKET, Key=key)["Body"].read()
        if found != content(int(seed), int(size)):
            sys.exit(f"{key}: not what was written")
        digest.update(found)
        total += len(found)
    listed = sum(len(page.get("Contents", [])) for page in clients[0].get_paginator("list_objects_v2").paginate(Bucket=BUCKET))
    if listed < len(lines):
        sys.exit(f"{len(lines)} objects were acknowledged, {listed} are listed")
    print(f"verified: {len(lines)} objects, {total >> 20} MiB, every byte as written (SHA-256 {digest.hexdigest()[:16]}...)")


if __name__ == "__main__":
    {"run": run, "verify": verify}[sys.argv[1]](sys.argv[2], sys.argv[3:])
