"""A build on Ray is the build of one machine, whoever is killed on the way.

Three ways to Ray: one of the command's own, the one this process is connected to, and one at RAY_ADDRESS. Everything
stays on loopback; Ray's processes end with the tests.
"""

import importlib.util
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image
from two_worker_ray import two_worker_ray

import appraiser
from appraiser import build_dataset
from appraiser.data.dataset import Manifest, open_dataset
from appraiser.data.fetch import FetchPolicy

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install ray"),
    pytest.mark.usefixtures("ray_alone"),
]

ROWS = 200
FATAL = 68
"""The row whose picture ends the process that decodes it."""
QUARANTINE = {
    61: "bad_price", 62: "no_title", 63: "missing_file", 64: "truncated", 65: "http_4xx", 66: "not_an_image",
    67: "blocked_address", FATAL: "decoder_died",
}  # fmt: skip
FATAL_PICTURES = """
import os
import appraiser.data.pictures as pictures
prepare = pictures.prepare
pictures.prepare = lambda data: os._exit(9) if data == b"fatal" else prepare(data)
"""


def picture(number: int) -> bytes:
    """Another picture for each number, none like the next."""
    cells = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells).resize((45, 45), Image.Resampling.NEAREST).save(buffer, "JPEG")
    return buffer.getvalue()


class Shop(BaseHTTPRequestHandler):
    """Serves /N; some of them are no picture."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        number = int(self.path.strip("/"))
        with self.server.lock:
            self.server.asked[number] += 1
            self.server.until_event -= 1
            if self.server.until_event == 0:
                self.server.event(self)
        body = {66: b"<html>sold out</html>", FATAL: b"fatal"}.get(number) or picture(number)
        try:
            self.send_response(404 if number == 65 else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Shop)
        self.place = f"127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Lock()
        self.asked: Counter[int] = Counter()
        self.until_event, self.event = -1, lambda handler: None

    def when(self, requests: int, event: Callable[[Shop], None]) -> None:
        """Let something happen while that many more pictures are asked for."""
        with self.lock:
            self.until_event, self.event = requests, event

    def handle_error(self, *_: object) -> None:
        pass


@dataclass(frozen=True)
class Catalogue:
    """A table, who serves its pictures, and what one machine makes of it."""

    table: Path
    server: Server
    environment: dict[str, str]
    manifest: Manifest
    quarantine: list[dict]

    def command(self, out: Path, *options: str) -> list[str]:
        return [
            *(sys.executable, "-m", "appraiser", "build", str(self.table), str(out), "--max-quarantined", "0.5"),
            *("--allow-private", self.server.place, "--ignore-robots", "--per-host", "2", *options),
        ]

    def check(self, out: Path) -> None:
        """The same data set to the last byte: counts, content and file hashes, every row of the quarantine."""
        assert open_dataset(out).manifest == self.manifest
        assert pq.read_table(out / "quarantine.parquet").to_pylist() == self.quarantine


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory) -> Iterator[Catalogue]:
    folder = tmp_path_factory.mktemp("shop")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    rows = []
    for number in range(1, ROWS + 1):
        image: str | list[str] = f"http://{server.place}/{number}"
        if number % 10 == 0 or number == 64:
            (folder / f"{number}.jpg").write_bytes(picture(number)[: 300 if number == 64 else None])
            image = f"{number}.jpg"
        elif number == 69:
            image = ["70.jpg", f"http://{server.place}/69"]
        rows.append({"id": f"P{number}", "title": f"Article {number}", "price": 10 + number, "image": image})
    rows[60]["price"], rows[61]["title"], rows[62]["image"] = "ten", "", "nowhere.jpg"
    rows[66]["image"] = "http://10.0.0.1/picture.jpg"
    table = folder / "products.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(FATAL_PICTURES)
    source = Path(appraiser.__file__).parents[1]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(source)]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": random.SystemRandom().randbytes(32).hex(),  # else Ray writes one to the home folder
        "RAY_TMPDIR": tempfile.mkdtemp(prefix="ray-", dir="/tmp"),  # short: names of sockets have 107 bytes at most
    }
    environment.pop("RAY_ADDRESS", None)
    here = Catalogue(table, server, environment, None, [])
    subprocess.run(here.command(folder / "here"), env=environment, check=True, capture_output=True)
    quarantine = pq.read_table(folder / "here" / "quarantine.parquet").to_pylist()
    assert {row["row"]: row["reason"] for row in quarantine} == QUARANTINE
    yield Catalogue(table, server, environment, open_dataset(folder / "here").manifest, quarantine)
    server.shutdown()
    server.server_close()
    thread.join()
    shutil.rmtree(environment["RAY_TMPDIR"])


@pytest.fixture(scope="module")
def cluster(catalogue) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in catalogue.environment.items():
            patch.setenv(name, value)
        with two_worker_ray() as address:
            yield address


def test_one_machine_and_a_ray_of_two_workers_make_the_same_data_set(catalogue, tmp_path):
    process = subprocess.Popen(catalogue.command(tmp_path / "out", "--on", "ray"), env=catalogue.environment)
    family: list[psutil.Process] = []
    catalogue.server.when(100, lambda _: family.extend(psutil.Process(process.pid).children(recursive=True)))
    assert process.wait() == 0
    catalogue.check(tmp_path / "out")
    assert family
    assert not [one for one in psutil.wait_procs(family, timeout=30)[1] if one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_row_and_doubles_none(catalogue, cluster, tmp_path):
    server, killed = catalogue.server, {}

    def kill_who_asks(handler: Shop) -> None:
        """End the worker that waits for this answer."""
        port = handler.client_address[1]
        owners = [one.pid for one in psutil.net_connections("tcp") if one.laddr.port == port and one.pid]
        killed.update({pid: (psutil.Process(pid).cmdline()[0], handler.path) for pid in owners if pid != os.getpid()})
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

    before = server.asked.copy()
    server.when(80, kill_who_asks)
    policy = FetchPolicy(frozenset({server.place}), num_parallel_per_host=2, respect_robots=False)
    build_dataset(catalogue.table, tmp_path / "out", max_quarantined=0.5, fetch=policy, on="ray")
    ((name, path),) = killed.values()
    assert name.startswith("ray::MapWorker")
    assert (server.asked - before)[int(path.strip("/"))] == 2  # its work was done again
    catalogue.check(tmp_path / "out")


def rows_in_ledger(out: Path, copy: Path) -> set[int]:
    """Rows that have their state."""
    copy.mkdir()
    for file in out.with_name(f".{out.name}.building").glob("ledger.sqlite*"):
        shutil.copy(file, copy)
    database = sqlite3.connect(copy / "ledger.sqlite")
    rows = {row for (row,) in database.execute("SELECT row FROM rows")}
    database.close()
    return rows


@pytest.mark.slow
def test_a_driver_killed_three_times_fetches_nothing_again_that_was_written_down(catalogue, cluster, tmp_path):
    server, moments = catalogue.server, random.Random(7)
    command = catalogue.command(tmp_path / "out", "--on", "ray")
    environment = catalogue.environment | {"RAY_ADDRESS": cluster}
    asked_until: dict[int, int] = {}
    # The first 20 pictures of a run are fetched by the driver itself.
    for attempt, span in enumerate([(1, 20), (21, 60), (21, 60)]):
        process = subprocess.Popen(command, env=environment)
        server.when(moments.randint(*span), lambda _, process=process: process.kill())
        assert process.wait() == -signal.SIGKILL
        for row in rows_in_ledger(tmp_path / "out", tmp_path / f"ledger-{attempt}") - set(asked_until):
            asked_until[row] = server.asked[row]
    subprocess.run(command, env=environment, check=True)
    assert len(asked_until) > 20
    assert {row: server.asked[row] for row in asked_until} == asked_until
    catalogue.check(tmp_path / "out")
