"""How fast does the service answer, and what does it do with ten times what it can answer?

    python benchmarks/serving.py [MODEL] [--seconds 15] [--write benchmarks/results/DATE-serving-cpu.md]

MODEL is a run trained on the sample catalogue; phi3v-tiny as it is shipped writes longer answers. The service is the
command `appraiser serve` in a process of its own; clients are here, on the same machine. Pictures are rendered products
of 336 px. Times of refusals are the service's own, from its log; memory is its resident memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from appraiser.data.samples.drawing import encode_jpeg
from appraiser.data.samples.items import draw_item, iter_products

NUM_PICTURES = 24
CONCURRENT = 32
PLACES = 64
OVERLOAD = 10


@dataclass(frozen=True)
class Server:
    """The service while it runs."""

    address: str
    pid: int
    log: Path

    def requests(self, began: float) -> list[dict[str, Any]]:
        """Its log's lines on requests since a moment (of `time.time()`)."""
        lines = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            if line.startswith("{"):
                fact = json.loads(line)
                moment = time.strptime(fact["time"].partition(".")[0], "%Y-%m-%dT%H:%M:%S")
                if fact["event"] == "request" and time.mktime(moment) - time.timezone >= began - 1:
                    lines.append(fact)
        return lines

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+)", status)
        return int(found[1]) / 1000 if found else 0.0


@contextmanager
def serving(model: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "appraiser", "serve", model, "--port", "0", "--places", str(PLACES)]
        with log.open("w") as said, subprocess.Popen([*command, "--known", "0"], stderr=said) as process:
            try:
                while not (found := re.search(r"http://\S+", log.read_text(encoding="utf-8"))):
                    if process.poll() is not None:
                        raise SystemExit(f"the service ended: {log.read_text(encoding='utf-8')}")
                    time.sleep(0.1)
                while True:
                    try:
                        if httpx.get(f"{found[0]}/ready", timeout=30).status_code == 200:
                            break
                    except httpx.ConnectError:
                        time.sleep(0.1)
                yield Server(found[0], process.pid, log)
            finally:
                process.terminate()


async def answer_all(server: Server, pictures: list[bytes], concurrent: int, seconds: float) -> tuple[float, float]:
    """Answers a second with so many clients, and the median time of one."""
    times: list[float] = []

    async def client(asking: httpx.AsyncClient, ends: float, number: int) -> None:
        while time.monotonic() < ends:
            began = time.monotonic()
            answer = await asking.post("/v1/appraise", content=pictures[(number + len(times)) % len(pictures)])
            answer.raise_for_status()
            times.append(time.monotonic() - began)

    async with _client(server, concurrent) as asking:
        await asyncio.gather(*(client(asking, time.monotonic() + 2, number) for number in range(concurrent)))  # warm-up
        times.clear()
        began = time.monotonic()
        await asyncio.gather(*(client(asking, began + seconds, number) for number in range(concurrent)))
        return len(times) / (time.monotonic() - began), statistics.median(times)


async def overload(server: Server, pictures: list[bytes], rate: float, seconds: float) -> Counter[str]:
    """Ask so many times a second, whether or not answers come; what became of each request."""
    outcomes: Counter[str] = Counter()

    async def ask(asking: httpx.AsyncClient, number: int) -> None:
        try:
            answer = await asking.post("/v1/appraise", content=pictures[number % len(pictures)])
            outcomes[str(answer.status_code)] += 1
        except httpx.HTTPError as error:
            outcomes[type(error).__name__] += 1

    async with _client(server, 1000) as asking:
        began, tasks = time.monotonic(), []
        while (passed := time.monotonic() - began) < seconds:
            while len(tasks) < passed * rate:
                tasks.append(asyncio.create_task(ask(asking, len(tasks))))
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)
    return outcomes


def _client(server: Server, connections: int) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=connections)
    headers = {"content-type": "image/jpeg"}
    return httpx.AsyncClient(base_url=server.address, headers=headers, timeout=60, limits=limits, trust_env=False)


def measure(model: str, seconds: float) -> list[str]:
    """All questions; lines of the page."""
    pictures = [encode_jpeg(draw_item(entry, 5), 90) for entry in iter_products(NUM_PICTURES, 5)]
    with serving(model) as server:
        alone, latency = asyncio.run(answer_all(server, pictures, 1, seconds))
        together, latency_together = asyncio.run(answer_all(server, pictures, CONCURRENT, seconds))
        before = server.memory_mb()
        began = time.time()
        outcomes = asyncio.run(overload(server, pictures, OVERLOAD * together, seconds))
        after = server.memory_mb()
        lines = server.requests(began)
    refusals = [line["ms"] for line in lines if line["status"] == 429]
    answered = [line["ms"] for line in lines if line["status"] == 200 and line["route"] == "/v1/appraise"]
    centiles = statistics.quantiles(refusals, n=100) if len(refusals) > 1 else [0.0] * 99
    became = ", ".join(f"{count} x {what}" for what, count in sorted(outcomes.items()))
    return [
        f"- one client: {alone:.2f} answers/s, {1000 * latency:.0f} ms each (median)",
        f"- {CONCURRENT} clients: {together:.2f} answers/s ({together / alone:.2f} times one), "
        f"{1000 * latency_together:.0f} ms each (median)",
        f"- {OVERLOAD} times that for {seconds:g} s: {became}; refusals took the service {centiles[49]:.1f} ms "
        f"(median), {centiles[98]:.1f} ms (99 %); answers {statistics.median(answered) / 1000:.1f} s (median), "
        f"{max(answered) / 1000:.1f} s (slowest); memory {before:.0f} MB before, {after:.0f} MB after",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="phi3v-tiny")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    lines = measure(arguments.model, arguments.seconds)
    facts = (
        f"`python benchmarks/serving.py {Path(arguments.model).name}`, {os.cpu_count()} cores, load {load:.1f} before."
    )
    text = "\n".join([f"# Service, CPU, {time.strftime('%Y-%m-%d')}", "", facts, "", *lines, ""])
    print(text)
    if arguments.write:
        arguments.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
