"""`python -m worker.fetch`, several at once, against a server that has the real Fashion-MNIST files.

The server is a proxy: the processes ask for the published addresses, and get what the proxy has.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

LARGEST = "train-images-idx3-ubyte.gz"


class Proxy(ThreadingHTTPServer):
    """Counts what it is asked for; while `halfway` is set, it sends half a file and then nothing."""

    def __init__(self, files: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked = files, Counter[str]()
        self.halfway, self.sent_half, self.over = threading.Event(), threading.Event(), threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        content = (self.server.files / self.path.rpartition("/")[2]).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.server.halfway.is_set():
            self.wfile.write(content[: len(content) // 2])
            self.server.sent_half.set()
            self.server.over.wait(30)
            return
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy(real_data) -> Iterator[Proxy]:
    server = Proxy(real_data / "fashion-mnist")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def start(data_dir: Path, *names: str, proxy: Proxy | None = None) -> subprocess.Popen[str]:
    address = f"http://127.0.0.1:{proxy.server_port if proxy else 1}"
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    environment |= {"SPIKEPROOF_DATA_DIR": str(data_dir), "http_proxy": address, "https_proxy": address}
    command = [sys.executable, "-m", "app.cli", "datasets", "fetch", *names]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[str]) -> tuple[int, list[str], list[str]]:
    output, errors = process.communicate(timeout=120)
    return process.returncode, output.splitlines(), errors.splitlines()


def test_several_at_once_ask_for_each_file_once_and_all_end_well(data_dir, proxy) -> None:
    ends = [finish(p) for p in [start(data_dir, "fashion-mnist", proxy=proxy) for _ in range(3)]]
    for code, output, errors in ends:
        assert (code, errors) == (0, [])
        assert output[-1] == "fashion-mnist: here, 60000 + 10000 images"
    assert sorted(proxy.asked.values()) == [1, 1, 1, 1]
    assert all(address.startswith("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/") for address in
               proxy.asked)
    assert sum("fashion-mnist: reading images" in output for _, output, _ in ends) == 1
    assert [p.name for p in (data_dir / "cache" / "datasets").iterdir()] == ["fashion-mnist-official-1"]


def test_one_killed_half_way_leaves_nothing_that_the_next_takes_for_whole(data_dir, proxy) -> None:
    proxy.halfway.set()
    killed = start(data_dir, "fashion-mnist", proxy=proxy)
    raw = data_dir / "downloads" / "fashion-mnist" / "FashionMNIST" / "raw"
    assert proxy.sent_half.wait(60)
    wait_for_bytes(raw, 1_000_000)
    killed.send_signal(signal.SIGKILL)
    finish(killed)
    assert not (raw / LARGEST).exists()
    proxy.halfway.clear()
    code, output, _ = finish(start(data_dir, "fashion-mnist", proxy=proxy))
    assert (code, output[-1]) == (0, "fashion-mnist: here, 60000 + 10000 images")
    assert not [p for p in raw.iterdir() if p.name.startswith(".")]


def wait_for_bytes(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while sum(p.stat().st_size for p in folder.glob(".*.part")) < count:
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)


def test_without_a_network_it_ends_with_a_line_for_each_data_set(data_dir) -> None:
    code, _, errors = finish(start(data_dir, "mnist", "digits", "svhn"))
    assert code == 1
    assert len(errors) == 2
    assert errors[0].startswith("spikeproof: the images of mnist cannot be downloaded (")
    assert "get train_32x32.mat, test_32x32.mat from http://ufldl.stanford.edu/housenumbers/ elsewhere" in errors[1]


def test_all_stands_for_whatever_can_be_downloaded(data_dir) -> None:
    code, _, errors = finish(start(data_dir, "all", "svhn"))
    assert code == 1
    told = [line.split(" cannot ")[0].rpartition(" ")[2] for line in errors]
    assert sorted(told) == ["cifar10", "cifar100", "fashion-mnist", "kmnist", "mnist", "svhn"]


def test_an_unknown_name_is_told_the_nearest_before_anything_is_fetched(data_dir, proxy) -> None:
    code, output, errors = finish(start(data_dir, "fashion-mnist", "sv-hn", proxy=proxy))
    assert (code, output) == (1, [])
    assert errors[0].startswith("spikeproof: there is no data set 'sv-hn'; did you mean 'svhn'?")
    assert not proxy.asked


def test_what_needs_no_download_is_said_to_need_none(data_dir) -> None:
    from PIL import Image

    for split in ("train", "test"):
        for name in "ab":
            (data_dir / "datasets" / "mine" / split / name).mkdir(parents=True)
            Image.new("L", (8, 8)).save(data_dir / "datasets" / "mine" / split / name / "0.png")
    code, output, errors = finish(start(data_dir, "digits", "mine"))
    assert (code, errors) == (0, [])
    assert output == ["digits: built in; nothing to download", "mine: DATA_DIR/datasets/mine has images; nothing to "
                      "download"]
