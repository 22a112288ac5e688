#!/usr/bin/env python3
"""Starts a schema registry (Apicurio, in memory) for tests, on a free port of 127.0.0.1.

Prints one line once it answers: the address for `schema.registry`. Ends, and with it the registry, when its standard input is closed or it gets
SIGTERM or SIGINT; the registry dies even if this process is killed. The jars are those of `./dev setup`. Needs Java 17 or newer.
"""

import ctypes
import glob
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

READY_SECONDS_MAX = 150
API = "/apis/ccompat/v7"


def die(message):
    print(f"registry: {message}", file=sys.stderr)
    sys.exit(1)


def die_with_parent():
    """In the child: SIGKILL when this process ends, however it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(address):
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address + "/subjects", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def main():
    cache = os.environ.get("FRESHET_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "freshet")
    found = glob.glob(os.path.join(cache, "registry", "apicurio-registry-app-*-runner.jar"))
    if not found:
        die(f"there is no registry in {cache}/registry; run ./dev setup")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log = tempfile.TemporaryFile()
    port = free_port()
    command = ["java", "-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    command += ["-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={port}", "-jar", found[0]]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, preexec_fn=die_with_parent)
    try:
        address = f"http://127.0.0.1:{port}{API}"
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not answers(address):
            if child.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                sys.stderr.write(log.read().decode(errors="replace")[-4000:])
                die("the registry did not start; its last words stand above")
            time.sleep(0.2)
        print(address, flush=True)
        sys.stdin.read()
    except KeyboardInterrupt:
        pass
    finally:
        child.kill()
        child.wait()


if __name__ == "__main__":
    main()
