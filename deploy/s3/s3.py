#!/usr/bin/env python3
"""Starts an S3 server (versitygw over a folder) for tests, on a free port of 127.0.0.1.

Prints one line of JSON once it answers:
  {"endpoint": "http://127.0.0.1:21001", "region": "us-east-1", "access_key": "…", "secret_key": "…", "folder": "…", "pid": 4711}
Then obeys lines on its standard input, each answered by one line, `ok` or `error …`:
  bucket NAME    make a bucket    kill    kill -9 the server    start    start it again over the same folder, on the same port, if it does not run
Ends, and with it the server, when its standard input is closed or it gets SIGTERM or SIGINT. The server dies even if this process is killed.
The binary is that of `./dev setup`.
"""

import ctypes
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

READY_SECONDS_MAX = 20
# Below the ports that systems give to outgoing connections, so that the server finds its port free when it is started again.
PORTS = range(20_000, 32_000)
START_ATTEMPTS_MAX = 5
REGION = "us-east-1"
ACCESS_KEY = "freshet-test"
SECRET_KEY = "freshet-test-secret"


class Failed(Exception):
    pass


def die_with_parent():
    """In a new child: SIGKILL when this process ends, however it ends, where the system can do that."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (OSError, AttributeError):
        pass


def binary():
    cache = os.environ.get("FRESHET_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "freshet")
    path = os.path.join(cache, "s3", "versitygw")
    if not os.access(path, os.X_OK):
        raise Failed(f"there is no versitygw in {cache}/s3; run ./dev setup")
    return path


def free_port():
    for port in random.sample(PORTS, 2_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed(f"no free port in {PORTS.start}–{PORTS.stop}")


class Server:
    def __init__(self, folder):
        self.folder = folder
        self.log = os.path.join(folder, "log")
        self.port = free_port()
        self.process = None
        for name in ("buckets", "metadata"):
            os.makedirs(os.path.join(folder, name), exist_ok=True)

    def start(self):
        if self.process is not None and self.process.poll() is None:
            return
        # Metadata beside the objects: not every file system of a test machine has extended attributes.
        backend = ["posix", "--sidecar", os.path.join(self.folder, "metadata"), os.path.join(self.folder, "buckets")]
        command = [binary(), "--quiet", "--keep-alive", "--region", REGION, "--port", f"127.0.0.1:{self.port}", *backend]
        environment = {**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent
            )
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not self.answers():
            if self.process.poll() is not None:
                raise Failed(f"versitygw ended with {self.process.returncode}: {self.last_words()}")
            if time.monotonic() > deadline:
                raise Failed(f"versitygw was not ready after {READY_SECONDS_MAX} s: {self.last_words()}")
            time.sleep(0.02)

    def answers(self):
        """Whether it speaks HTTP: what it says to a request without a signature does not matter."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status > 0
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def last_words(self):
        with open(self.log, errors="replace") as log:
            return "".join(log.readlines()[-20:])

    def describe(self):
        keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
        return json.dumps({"endpoint": f"http://127.0.0.1:{self.port}", "region": REGION, **keys, "folder": self.folder, "pid": self.process.pid})

    def obey(self, line):
        words = line.split()
        if words == ["kill"]:
            self.kill()
        elif words == ["start"]:
            self.start()
        elif len(words) == 2 and words[0] == "bucket" and re.fullmatch(r"[a-z0-9][a-z0-9.-]{2,62}", words[1]):
            # A folder below the root is a bucket.
            os.makedirs(os.path.join(self.folder, "buckets", words[1]), exist_ok=True)
        else:
            raise Failed(f"unknown command {line!r}; known are bucket NAME, kill, start")


def start(folder):
    for attempt in range(START_ATTEMPTS_MAX):
        server = Server(folder)
        try:
            server.start()
            return server
        except Failed as error:
            server.kill()
            if "address already in use" not in str(error) or attempt + 1 == START_ATTEMPTS_MAX:
                raise
    raise AssertionError("the last attempt returns or raises")


def interrupt(_signal, _frame):
    raise KeyboardInterrupt


def main():
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    folder = tempfile.mkdtemp(prefix="freshet-s3-")
    server = None
    try:
        server = start(folder)
        print(server.describe(), flush=True)
        for line in sys.stdin:
            try:
                server.obey(line.strip())
                print("ok", flush=True)
            except Failed as error:
                print("error", str(error).replace("\n", " | "), flush=True)
    except KeyboardInterrupt:
        pass
    except Failed as error:
        print(f"s3: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if server is not None:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
