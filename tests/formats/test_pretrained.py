"""Published weights from a server of our own: whole, broken off, wrong, absent; and kept."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import shutil
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdsl import lang
from netdsl.faults import NetError
from netdsl.formats import fetch as fetching
from netdsl.formats import pretrained
from netdsl.formats.fetch import fetch
from netdsl.graph.weights import initialise
from netdsl.net import Net
from netdsl.train.data import named

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()[:8]


class Server(http.server.ThreadingHTTPServer):
    """Serves what `files` holds; `cut` is after how many bytes an answer breaks off."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut: int | None = None
        self.ranges = True
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        start = start if self.server.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.server.cut])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        found.files["a.bin"] = CONTENT
        yield found
        found.shutdown()
        thread.join()


def code(server: Server, to: Path, name: str = "a.bin") -> str:
    with pytest.raises(NetError) as caught:
        fetch(f"{server.url}/{name}", to, DIGEST)
    return caught.value.faults[0].code


def test_a_whole_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    to = tmp_path / "deep" / "a.bin"
    for _ in range(2):
        path = fetch(f"{server.url}/a.bin", to, DIGEST, lambda *at: seen.append(at))
        assert path.read_bytes() == CONTENT
    assert server.asked == [None]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [p.name for p in to.parent.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on(server: Server, tmp_path: Path, ranges: bool) -> None:
    to = tmp_path / "a.bin"
    server.cut, server.ranges = 500_000, ranges
    assert code(server, to) == "cannot-fetch"
    assert not to.exists()
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:500_000]
    server.cut = None
    assert fetch(f"{server.url}/a.bin", to, DIGEST).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=500000-"]


def test_a_part_that_is_whole_already(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert fetch(f"{server.url}/a.bin", tmp_path / "a.bin", DIGEST).read_bytes() == CONTENT


def test_a_wrong_file_is_removed(server: Server, tmp_path: Path) -> None:
    server.files["a.bin"] = CONTENT[:-1] + b"x"
    assert code(server, tmp_path / "a.bin") == "wrong-checksum"
    assert not list(tmp_path.iterdir())


def test_a_part_of_another_file_is_removed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    assert code(server, tmp_path / "a.bin") == "wrong-checksum"
    assert fetch(f"{server.url}/a.bin", tmp_path / "a.bin", DIGEST).read_bytes() == CONTENT


def test_no_such_file_and_no_server(server: Server, tmp_path: Path) -> None:
    assert code(server, tmp_path / "a.bin", "other") == "cannot-fetch"
    server.server_close()
    with pytest.raises(NetError, match="try again; or put the file at"):
        fetch("http://127.0.0.1:9/a.bin", tmp_path / "a.bin", DIGEST)


def test_no_space(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: full)
    assert code(server, tmp_path / "a.bin") == "no-space"
    monkeypatch.undo()

    def disk_full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetching, "_copy", disk_full)
    assert code(server, tmp_path / "a.bin") == "cannot-write"


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert code(server, tmp_path / "file" / "a.bin") == "cannot-write"


def test_sets_of_examples_come_the_same_way(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MNIST in small: a download that broke off goes on, and four whole files are the set."""
    pictures = struct.pack(">4i", 0x803, 4, 28, 28) + bytes(4 * 784)
    classes = struct.pack(">2i", 0x801, 4) + bytes([3, 1, 4, 1])
    packed = [gzip.compress(x, mtime=0) for x in (pictures, classes, pictures, classes)]
    server.files |= {f"{name}.gz": x for name, x in zip(named.FILES, packed, strict=True)}
    sums = tuple(f"md5:{hashlib.md5(x).hexdigest()}" for x in packed)
    one = named.NamedSet(f"{server.url}/", sums, "mnist")
    monkeypatch.setitem(named.SETS, "mnist", one)
    monkeypatch.setattr(named, "user_folder", lambda: tmp_path)
    monkeypatch.delenv("NETDSL_DATA", raising=False)
    server.cut = 20
    with pytest.raises(NetError, match=r"the connection ended after 20 of .* try again"):
        named.read_named("mnist")
    server.cut = None
    data = named.read_named("mnist")
    assert server.asked[:2] == [None, "bytes=20-"]
    assert data.test is not None
    assert data.test.targets.tolist() == [3, 1, 4, 1]
    server.files.clear()
    named.read_named("mnist")
    broken = replace(one, packed=("md5:00", *sums[1:]))
    monkeypatch.setitem(named.SETS, "fashion_mnist", broken)
    server.files |= {f"{name}.gz": x for name, x in zip(named.FILES, packed, strict=True)}
    with pytest.raises(NetError, match="gave a file whose checksum begins with"):
        named.read_named("fashion_mnist")


def test_every_published_net_is_in_the_zoo_and_has_a_map() -> None:
    from netdsl import resources
    from netdsl.formats.namemap import maps_beside

    zoo = resources.zoo()
    for name in pretrained.FILES:
        assert "torchvision" in [m.source for m in maps_beside(zoo[name])]
        assert len(pretrained.published(name).digest) == 8
        assert int(pretrained.published(name).digest, 16) >= 0


def test_pull_converts_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    net = tmp_path / "tiny.net"
    net.write_text("input 2x4x4; conv3(3, bias=no) -> bn -> fc(2)".replace("; ", "\n"))
    (tmp_path / "tiny.torchvision.map").write_text(
        "parameters weight bias mean=running_mean var=running_var\nskip *.num_batches_tracked\n"
        "conv1 features.0\nbn1 features.1\nfc1 classifier\n"
    )
    model = torch.nn.ModuleDict(
        {
            "features": torch.nn.Sequential(
                torch.nn.Conv2d(2, 3, 3, bias=False), torch.nn.BatchNorm2d(3)
            ),
            "classifier": torch.nn.Linear(12, 2),
        }
    )
    torch.save(model.state_dict(), tmp_path / "x.pth")
    content = (tmp_path / "x.pth").read_bytes()
    name = f"tiny-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[name] = content
    monkeypatch.setattr(pretrained, "FILES", {"tiny": name})
    monkeypatch.setattr(pretrained.resources, "zoo", lambda: {"tiny": net})
    monkeypatch.setenv("NETDSL_MIRROR", server.url)
    monkeypatch.setenv("NETDSL_WEIGHTS", str(tmp_path / "kept"))
    for _ in range(2):
        loaded = Net.load(net)
        loaded.load_weights("pretrained")
        np.testing.assert_array_equal(
            loaded.weights["fc1.weight"], model["classifier"].weight.detach().numpy()
        )
        assert loaded.trained
    assert len(server.asked) == 1
    assert [p.suffix for p in (tmp_path / "kept").iterdir()] == [".safetensors"]


def test_a_net_that_nobody_published() -> None:
    graph = lang.load("net own; input 2; fc(2)")
    with pytest.raises(NetError, match="no published weights are known for own"):
        pretrained.pull(graph)


# Other files by their ending ----------------------------------------------------------------------


def test_weights_of_every_format(tmp_path: Path) -> None:
    from netdsl.formats.caffe import write_caffe
    from netdsl.formats.darknet import write_darknet

    graph = lang.load("net one; input 1x6x6; conv3(2) -> relu -> fc(3)")
    weights = initialise(graph, 5)
    _, model = write_caffe(graph, weights, tmp_path / "one.prototxt")
    _, numbers = write_darknet(graph, weights, tmp_path / "one.cfg")
    Net(graph).save(tmp_path / "one.safetensors")
    for path in (model, numbers):
        net = Net(graph)
        net.load_weights(path)
        assert {n: v.tobytes() for n, v in net.weights.items()} == {
            n: v.tobytes() for n, v in weights.items()
        }


def test_pytorchs_counters_do_not_matter(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    torch.save(model.state_dict(), tmp_path / "x.pt")
    net = Net.load(text="input 2x6x6; conv3(3) -> bn")
    net.load_weights(tmp_path / "x.pt")
    x = np.random.default_rng(0).random((2, 2, 6, 6), np.float32)
    with torch.no_grad():
        wanted = model.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(net.run(x, device="reference"), wanted, atol=1e-6)
