#!/usr/bin/env python3
"""The node from outside: start-up, memory, and QoS 1 publishes beside mosquitto.

    benches/node.py --holdfast target/release/holdfast --loader target/release/deps/mqtt_load-...

Start-up and memory are budgets: best of five. The MQTT rates are a comparison: both brokers run at
the same time, the loader takes them in turn, medians and ratios are printed. Nothing subscribes.
"""

import argparse
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

STARTS = 5
ROUNDS = 5
IDLE_SETTLE_S = 2.0
START_BAR_MS = 150
IDLE_BAR_MB = 60
MQTT_BAR = 2.0
LOADS = [(8, 1000, 800_000), (4, 100, 200_000), (50, 20, 200_000)]


class Holdfast:
    """One `holdfast serve` on ports of its own."""

    def __init__(self, binary, data_dir):
        ports = ["--mqtt", "127.0.0.1:0", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            [binary, "serve", "--data-dir", data_dir, *ports],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.ports = {}
        for line in self.process.stdout:
            words = line.split()
            if words[:1] == ["listening"]:
                self.ports[words[1]] = int(words[2].rsplit(":", 1)[1])
            if words == ["ready"]:
                break
        for port in self.ports.values():
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        self.started_ms = (time.monotonic() - self.begun) * 1000

    def rss_mb(self, field="VmRSS"):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=60) == 0


def machine():
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} cores, {model[1] if model else 'unknown'}, Linux {platform.release()}"


def start_and_memory(binary, work):
    starts, idle = [], []
    for n in range(STARTS):
        node = Holdfast(binary, f"{work}/start-{n}")
        starts.append(node.started_ms)
        time.sleep(IDLE_SETTLE_S)
        idle.append(node.rss_mb())
        node.stop()
    print(f"\nstart of `holdfast serve` on an empty directory until all ports accept, best of {STARTS}")
    print(f"  {min(starts):.0f} ms (all: {', '.join(f'{s:.0f}' for s in starts)})   bar {START_BAR_MS} ms")
    print(f"idle resident memory {IDLE_SETTLE_S:.0f} s later, best of {STARTS}")
    print(f"  {min(idle):.1f} MB (all: {', '.join(f'{m:.1f}' for m in idle)})   bar {IDLE_BAR_MB} MB")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_mosquitto(work):
    port = free_port()
    config = Path(work, "mosquitto.conf")
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        "max_inflight_messages 0\nmax_queued_messages 0\n"
    )
    command = [shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return process, port
        except OSError:
            assert time.monotonic() < deadline and process.poll() is None, "mosquitto does not start"


def load(loader, port, topic, connections, window, count):
    command = [
        loader, "--addr", f"127.0.0.1:{port}", "--connections", str(connections),
        "--window", str(window), "--size", "200", "--count", str(count), "--topic", topic,
    ]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    return float(re.search(r"([\d.]+) msgs/s", said.replace(",", ""))[1])


def mqtt(binary, loader, work):
    print("\nQoS 1 publishes of 200 B over loopback, no subscriber, same loader, in turn, medians of", ROUNDS)
    print("  mosquitto: persistence off, acknowledges from memory; holdfast: acknowledges after fdatasync")
    mosquitto, mosquitto_port = start_mosquitto(work)
    node = Holdfast(binary, f"{work}/mqtt")
    try:
        for connections, window, count in LOADS:
            theirs, ours = [], []
            for _ in range(ROUNDS):
                theirs.append(load(loader, mosquitto_port, "bench/dev-{}", connections, window, count))
                ours.append(load(loader, node.ports["mqtt"], "bench/dev-{}", connections, window, count))
            ratio = statistics.median(b / a for a, b in zip(theirs, ours))
            bar = f"   bar {MQTT_BAR}" if (connections, window) == LOADS[0][:2] else ""
            print(
                f"  {connections:>3} connections x {window:>4} in flight: mosquitto {statistics.median(theirs):>9,.0f}/s"
                f"   holdfast {statistics.median(ours):>9,.0f}/s   ratio {ratio:.2f}{bar}"
            )
        print(f"  holdfast resident memory, peak {node.rss_mb('VmHWM'):.0f} MB")
    finally:
        node.stop()
        mosquitto.terminate()
        mosquitto.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--holdfast", required=True)
    parser.add_argument("--loader", required=True)
    arguments = parser.parse_args()
    work = tempfile.mkdtemp(prefix="holdfast-bench-", dir=os.environ.get("HOLDFAST_BENCH_DIR"))
    try:
        print(f"machine: {machine()}, files in {work}")
        start_and_memory(arguments.holdfast, work)
        mqtt(arguments.holdfast, arguments.loader, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
