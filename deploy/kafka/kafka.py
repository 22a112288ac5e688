#!/usr/bin/env python3
"""Starts Apache Kafka in KRaft mode for tests and the demo: one or three brokers, each also a controller, in a folder of their own.

Prints one line of JSON once every broker answers:
  {"bootstrap": "127.0.0.1:21001", "brokers": [{"id": 1, "port": 21001, "pid": 4711}], "secure": {"bootstrap": …, "ca": …}}
Then obeys lines on its standard input, each answered by one line, `ok` or `error …`:
  kill ID     kill -9 the broker        stop ID     end it in order        start ID    start it again on the same folder and port, if it does not run
  topic NAME PARTITIONS    create a topic that every broker keeps
Ends, and with it the brokers, when its standard input is closed or it gets SIGTERM or SIGINT. Its brokers die even if it is killed.
The jars are those of `./dev setup`. Needs Java 17 or newer, and openssl for --sasl.
"""

import argparse
import ctypes
import glob
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 10
# Below the ports that systems give to outgoing connections, so that a broker finds its port free when it is started again.
PORTS = range(20_000, 32_000)
START_ATTEMPTS_MAX = 3
CLUSTER_ID = "ZnJlc2hldC1rYWZrYS0wMQ"

COMMON = """\
process.roles=broker,controller
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
auto.create.topics.enable=false
num.partitions=1
default.replication.factor={replicas}
min.insync.replicas=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor={replicas}
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=2
num.replica.fetchers=1
num.recovery.threads.per.data.dir=1
background.threads=2
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.backoff.ms=200
log.index.size.max.bytes=262144
log.retention.check.interval.ms=1000
log.retention.ms=-1
message.max.bytes=20971520
replica.fetch.max.bytes=20971520
replica.lag.time.max.ms=3000
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=2000
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1000
controlled.shutdown.enable=true
"""

SECURE = """\
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secure.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location={folder}/broker.pem
listener.name.secure.ssl.client.auth=none
"""


class Failed(Exception):
    pass


def say(text):
    print(f"[kafka] {text}", file=sys.stderr, flush=True)


def jars():
    cache = os.environ.get("FRESHET_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "freshet")
    folder = os.path.join(cache, "kafka")
    if not glob.glob(os.path.join(folder, "kafka_2.13-*.jar")):
        raise Failed(f"there is no Kafka in {folder}; run ./dev setup")
    if not shutil.which("java"):
        raise Failed("there is no java on the path; run ./dev setup, or install Java 17 or newer")
    return os.path.join(folder, "*")


def free_ports(count):
    """Ports nobody listens on. The sockets are closed again: another process could be faster, which a second attempt heals."""
    found, sockets = [], []
    for port in random.sample(PORTS, 2_000):
        probe = socket.socket()
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            probe.close()
            continue
        sockets.append(probe)
        found.append(port)
        if len(found) == count:
            break
    for probe in sockets:
        probe.close()
    if len(found) < count:
        raise Failed(f"no {count} free ports in {PORTS.start}–{PORTS.stop}")
    return found


def make_certificates(folder):
    """An authority of its own and a certificate of localhost, both good for a day."""

    def openssl(*arguments):
        done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"openssl {arguments[0]}: {done.stderr.strip()}")

    if not shutil.which("openssl"):
        raise Failed("there is no openssl on the path; run ./dev setup")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "1", "-subj", "/CN=Freshet test authority")
    openssl("req", *key, "-keyout", "broker.key", "-out", "broker.csr", "-subj", "/CN=localhost")
    with open(os.path.join(folder, "names"), "w") as file:
        file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "broker.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "broker.crt", "-days", "1", "-extfile", "names")
    with open(os.path.join(folder, "broker.pem"), "w") as out:
        for name in ("broker.key", "broker.crt"):
            with open(os.path.join(folder, name)) as part:
                out.write(part.read())


def die_with_parent():
    """In a new child: a launcher that is killed takes its brokers with it, where the system can do that."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (OSError, AttributeError):
        pass


class Broker:
    def __init__(self, cluster, id, ports):
        self.cluster = cluster
        self.id = id
        self.port, self.controller_port, self.secure_port = ports
        self.folder = os.path.join(cluster.folder, f"broker-{id}")
        self.log = os.path.join(cluster.folder, f"broker-{id}.log")
        self.process = None

    def configure(self):
        secure = self.cluster.users
        listeners = f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}"
        advertised = f"PLAINTEXT://127.0.0.1:{self.port}"
        if secure:
            listeners += f",SECURE://127.0.0.1:{self.secure_port}"
            advertised += f",SECURE://localhost:{self.secure_port}"
        voters = ",".join(f"{broker.id}@127.0.0.1:{broker.controller_port}" for broker in self.cluster.brokers)
        with open(self.folder + ".properties", "w") as file:
            file.write(COMMON.format(replicas=len(self.cluster.brokers)))
            if secure:
                file.write(SECURE.format(folder=self.cluster.folder))
            file.write(f"node.id={self.id}\nlog.dirs={self.folder}\nlisteners={listeners}\nadvertised.listeners={advertised}\n")
            file.write(f"controller.quorum.voters={voters}\n")

    def java(self, *arguments):
        options = [f"-Xmx{self.cluster.heap}", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData"]
        logging = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true"]
        return ["java", *options, *logging, "-cp", self.cluster.jars, *arguments]

    def format(self):
        users = [part for name, password in self.cluster.users for part in ("--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]")]
        command = self.java("kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "--config", self.folder + ".properties", *users)
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=open(self.log, "ab"), stderr=subprocess.STDOUT, preexec_fn=die_with_parent)

    def start(self):
        if self.process is not None and self.process.poll() is None:
            return
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.java("kafka.Kafka", self.folder + ".properties"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def wait_until_ready(self):
        """A broker opens its port when it is in the cluster and its partitions are led or followed."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            if self.process.poll() is not None:
                raise Failed(f"broker {self.id} ended with {self.process.returncode}:\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise Failed(f"broker {self.id} was not ready after {READY_SECONDS_MAX} s:\n{self.last_words()}")
            if answers(self.port):
                return
            time.sleep(0.05)

    def stop(self, how):
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def last_words(self):
        with open(self.log, errors="replace") as log:
            return "".join(log.readlines()[-20:])


def answers(port):
    """Whether the broker answers a request for its versions: the port is open long before that."""
    request = bytes([0, 18, 0, 0, 0, 0, 0, 1, 255, 255])
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.settimeout(1)
            connection.sendall(len(request).to_bytes(4, "big") + request)
            return len(connection.recv(8)) > 0
    except OSError:
        return False


def create_topic(port, name, partitions, replicas):
    """One CreateTopics request, version 4: a tool of Kafka's own would start a Java machine for it."""
    text = lambda value: struct.pack(">h", len(value)) + value.encode()
    topic = text(name) + struct.pack(">ihii", partitions, replicas, 0, 0)
    request = struct.pack(">hhi", 19, 4, 1) + text("freshet") + struct.pack(">i", 1) + topic + struct.pack(">i?", 30_000, False)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.makefile("rb")
        (length,) = struct.unpack(">i", answer.read(4))
        # Correlation id, throttle time, the number of topics, the name; then what became of it.
        body = answer.read(length)[12 + 2 + len(name.encode()) :]
        (error,) = struct.unpack(">h", body[:2])
        if error != 0:
            raise Failed(f"topic {name} could not be created: error {error} {body[4:].decode(errors='replace')}")


class Cluster:
    def __init__(self, folder, count, users, heap):
        self.folder = folder
        self.users = users
        self.heap = heap
        self.jars = jars()
        ports = free_ports(3 * count)
        self.brokers = [Broker(self, index + 1, ports[3 * index : 3 * index + 3]) for index in range(count)]

    def start(self):
        for broker in self.brokers:
            broker.configure()
        formats = [(broker, broker.format()) for broker in self.brokers]
        for broker, process in formats:
            if process.wait() != 0:
                raise Failed(f"the storage of broker {broker.id} could not be formatted:\n{broker.last_words()}")
        for broker in self.brokers:
            broker.start()
        for broker in self.brokers:
            broker.wait_until_ready()

    def stop(self):
        for broker in self.brokers:
            if broker.process is not None and broker.process.poll() is None:
                # Nobody reads this data again: an end in order would only take longer.
                broker.process.kill()
        for broker in self.brokers:
            broker.stop(signal.SIGKILL)

    def describe(self):
        described = {
            "bootstrap": ",".join(f"127.0.0.1:{broker.port}" for broker in self.brokers),
            "brokers": [{"id": broker.id, "port": broker.port, "pid": broker.process.pid} for broker in self.brokers],
        }
        if self.users:
            secure = ",".join(f"localhost:{broker.secure_port}" for broker in self.brokers)
            described["secure"] = {"bootstrap": secure, "ca": os.path.join(self.folder, "ca.pem")}
        return json.dumps(described)

    def obey(self, line):
        words = line.split()
        if len(words) == 3 and words[0] == "topic" and words[2].isdigit():
            return create_topic(self.brokers[0].port, words[1], int(words[2]), len(self.brokers))
        broker = next((broker for broker in self.brokers if len(words) == 2 and words[1] == str(broker.id)), None)
        if broker is None or words[0] not in ("kill", "stop", "start"):
            raise Failed(f"unknown command {line!r}; known are kill ID, stop ID, start ID, topic NAME PARTITIONS")
        if words[0] == "start":
            broker.start()
            broker.wait_until_ready()
        else:
            broker.stop(signal.SIGKILL if words[0] == "kill" else signal.SIGTERM)


def start(arguments, folder):
    users = [tuple(user.split(":", 1)) for user in arguments.sasl]
    if users:
        make_certificates(folder)
    for attempt in range(START_ATTEMPTS_MAX):
        cluster = Cluster(folder, arguments.brokers, users, arguments.heap)
        try:
            cluster.start()
            return cluster
        except BaseException as error:
            cluster.stop()
            if "Address already in use" not in str(error) or attempt + 1 == START_ATTEMPTS_MAX:
                raise
            for broker in cluster.brokers:
                shutil.rmtree(broker.folder, ignore_errors=True)
    raise AssertionError("the last attempt returns or raises")


def interrupt(_signal, _frame):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", type=int, choices=[1, 3], default=1)
    parser.add_argument("--folder", help="where brokers keep their data; default: a temporary folder, deleted at the end")
    parser.add_argument("--sasl", metavar="USER:PASSWORD", action="append", default=[], help="a user of a listener with TLS and SCRAM-SHA-512")
    parser.add_argument("--heap", default="384m", help="of each broker")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    folder = arguments.folder or tempfile.mkdtemp(prefix="freshet-kafka-")
    os.makedirs(folder, exist_ok=True)
    folder = os.path.abspath(folder)
    cluster = None
    try:
        cluster = start(arguments, folder)
        print(cluster.describe(), flush=True)
        for line in sys.stdin:
            try:
                cluster.obey(line.strip())
                print("ok", flush=True)
            except Failed as error:
                print("error", str(error).replace("\n", " | "), flush=True)
    except KeyboardInterrupt:
        pass
    except Failed as error:
        say(str(error))
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if cluster is not None:
            cluster.stop()
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
