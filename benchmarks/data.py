"""How many pictures a second are drawn, fetched, decoded and built, against the common script on the same machine?

    python benchmarks/data.py [--rows 3000] [--latency-ms 100] [--tasks sample,fetch,build,local,check]

`fetch` and `build` read from a server on loopback that waits before each answer. The common script asks for one
picture after the other, opens it and saves it as JPEG; it is timed on fewer rows, at the same server. Every measurement
runs in a process of its own; the table shows seconds, pictures per second and the peak memory of that process, without
its workers'.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from appraiser import build_dataset, make_catalogue
from appraiser.data.checking.check import check_dataset, save_check
from appraiser.data.fetch import FetchPolicy, fetch_all
from appraiser.data.pictures import encode

SCRIPT_ROWS = 40
PICTURE_PX = 160


def small_picture(number: int) -> bytes:
    """A JPEG of some kilobytes that resembles no other."""
    cells = np.random.default_rng(number).integers(0, 255, (10, 10, 3), dtype=np.uint8)
    return encode(Image.fromarray(cells).resize((PICTURE_PX, PICTURE_PX), Image.Resampling.BICUBIC), quality=85)


def serve(latency_s: float, pictures: list[bytes], port: Any) -> None:
    """Answer GET /N with picture N after `latency_s`; connections are kept, as picture servers do."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                name = request.split(b" ", 2)[1].strip(b"/").decode()
                await asyncio.sleep(latency_s)
                status, body = ("200 OK", pictures[int(name)]) if name.isdigit() else ("404 Not Found", b"")
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def common_script(urls: list[str], folder: Path) -> None:
    """One request after the other, each picture opened and saved again."""
    for number, url in enumerate(urls):
        response = httpx.get(url, trust_env=False)
        path = folder / f"{number}.received"
        path.write_bytes(response.content)
        Image.open(path).save(folder / f"{number}.jpg")


def table(folder: Path, urls: list[str]) -> Path:
    """products.csv with a URL a row."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "products.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "price", "imageurl"])
        writer.writerows([f"P{n}", f"Article number {n}", 10 + n, url] for n, url in enumerate(urls))
    return path


def measured(work: Callable[..., None], *arguments: Any) -> dict[str, float]:
    """Seconds and peak MiB of `work` in a fresh process; its own children's peak beside it."""
    context = multiprocessing.get_context("spawn")
    facts = context.Queue()
    process = context.Process(target=_timed, args=(facts, work, arguments))
    process.start()
    found: dict[str, float] = facts.get()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{work.__name__} failed with exit code {process.exitcode}")
    return found


def _timed(facts: Any, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    started = time.perf_counter()
    work(*arguments)
    seconds = time.perf_counter() - started
    facts.put({"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})


def draw(folder: Path, rows: int, workers: int) -> None:
    """Render a catalogue."""
    make_catalogue(folder, rows, num_workers=workers)


def fetch(urls: list[str], policy: FetchPolicy) -> None:
    """Fetch, and make sure that everything came."""
    if not all(result.data for result in fetch_all(urls, policy)):
        raise SystemExit("a picture did not arrive")


def build(source: Path, out: Path, policy: FetchPolicy) -> None:
    """Build a data set."""
    build_dataset(source, out, fetch=policy)


def check(dataset: Path, out: Path, workers: int) -> None:
    """Check a data set and write its page."""
    save_check(check_dataset(dataset, num_workers=workers), out)


def main() -> None:
    """Measure, print a table, and the numbers as JSON in the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--latency-ms", type=float, default=100.0)
    parser.add_argument("--per-host", type=int, default=128)
    parser.add_argument("--tasks", default="sample,fetch,build,local,check")
    options = parser.parse_args()
    tasks = options.tasks.split(",")
    results: dict[str, dict[str, float]] = {}

    def note(name: str, pictures: int, facts: dict[str, float]) -> None:
        results[name] = facts | {"pictures": pictures, "per_s": pictures / facts["seconds"]}
        print(f"| {name} | {pictures} | {facts['seconds']:.2f} | {pictures / facts['seconds']:.1f} "
              f"| {facts['peak_mib']:.0f} |", flush=True)  # fmt: skip

    print("| task | pictures | seconds | pictures/s | peak MiB |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "sample" in tasks:
            rows = max(1, options.rows // 5)
            note("sample, 336 px, one process", rows, measured(draw, folder / "catalogue", rows, 1))
        if "local" in tasks:
            make_catalogue(folder / "source", options.rows)
            policy = FetchPolicy()
            facts = measured(build, folder / "source", folder / "local", policy)
            note("build, files of 336 px", options.rows, facts)
            if "check" in tasks:
                workers = min(multiprocessing.cpu_count(), 8)
                facts = measured(check, folder / "local", folder / "page", workers)
                note(f"check, 336 px, {workers} processes", options.rows, facts)
        if {"fetch", "build"} & set(tasks):
            context = multiprocessing.get_context("spawn")
            port = context.Queue()
            pictures = [small_picture(number) for number in range(options.rows)]
            server = context.Process(target=serve, args=(options.latency_ms / 1000, pictures, port), daemon=True)
            server.start()
            place = f"127.0.0.1:{port.get()}"
            urls = [f"http://{place}/{number}" for number in range(options.rows)]
            policy = FetchPolicy(
                frozenset({place}), num_parallel=options.per_host, num_parallel_per_host=options.per_host
            )
            (folder / "script").mkdir()
            script = measured(common_script, urls[:SCRIPT_ROWS], folder / "script")
            note("common script, URLs", SCRIPT_ROWS, script)
            if "fetch" in tasks:
                note("fetch, URLs", options.rows, measured(fetch, urls, policy))
            if "build" in tasks:
                facts = measured(build, table(folder / "shop", urls), folder / "built", policy)
                note("build, URLs", options.rows, facts)
                ratio = results["build, URLs"]["per_s"] / results["common script, URLs"]["per_s"]
                print(f"\nbuild against the common script: {ratio:.1f} x")
            server.terminate()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
