"""`holdfast doctor` on the data of a real node: whole, broken, and in use."""

from __future__ import annotations

import subprocess
from pathlib import Path

from confluent_kafka import Producer
from conftest import Node, binary, create_topic


def doctor(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(binary()), "doctor", "--data-dir", str(node.data_dir), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_doctor_finds_what_is_broken_and_nothing_else(tmp_path: Path) -> None:
    with Node(tmp_path, config="[log]\nsegment_bytes = 1048576\nbatch_bytes_max = 524288\n") as node:
        node.start()
        create_topic(node, "t", partitions=1)
        producer = Producer({"bootstrap.servers": node.bootstrap, "batch.num.messages": 10})
        for n in range(4000):
            producer.produce("t", value=f"value {n:01000}", partition=0)
            producer.poll(0)
        assert producer.flush(60) == 0

        running = doctor(node)
        assert running.returncode == 1
        assert "it is looked through while it is stopped" in running.stderr

        node.kill()
        whole = doctor(node)
        assert whole.returncode == 0, whole.stdout + whole.stderr
        assert ": 0 damaged, 0 disagreements" in whole.stdout

        needle = f"value {123:01000}".encode()
        for path in sorted((node.data_dir / "segments").iterdir()):
            content = bytearray(path.read_bytes())
            at = content.find(needle)
            if at >= 0:
                content[at] ^= 1
                path.write_bytes(content)
                break
        broken = doctor(node)
        assert broken.returncode == 74
        assert broken.stdout.startswith("damage: segment 00000000000000"), broken.stdout
        assert ": t-0, offsets 12" in broken.stdout, broken.stdout
        assert "holds damage that costs records" in broken.stderr


def test_the_doctor_says_where_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    command = [str(binary()), "doctor", "--data-dir", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "holds no log" in done.stderr
    assert not (tmp_path / "nowhere").exists()
