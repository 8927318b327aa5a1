"""The service under load: nobody gets another's answer, overload is refused at once, who leaves frees a place, and an
end breaks nothing that was accepted."""

import asyncio
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from services import Echo, jpeg, looks, running, tiny_service

HEADERS = {"content-type": "image/jpeg"}


def metric(address: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", httpx.get(f"{address}/metrics").text, re.M)
    assert found, name
    return float(found[1])


def until(condition, seconds: float = 10.0) -> float:
    """Seconds until a condition holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it never came to hold"
        time.sleep(0.02)
    return time.monotonic() - began


def test_a_thousand_at_once_get_each_their_own_answer(tmp_path):
    echo = Echo(0.02)
    service = tiny_service(tmp_path, echo, num_places=1000, deadline_s=120)
    pictures = [jpeg(number) for number in range(40)]
    names = [looks(service.predictor, data) for data in pictures]
    assert len(set(names)) == 40

    async def ask(client: httpx.AsyncClient, number: int) -> bool:
        answer = await client.post("/v1/appraise", content=pictures[number % 40])
        return answer.status_code == 200 and answer.json()["title"] == names[number % 40]

    async def ask_all(address: str) -> list[bool]:
        limits = httpx.Limits(max_connections=1000)
        async with httpx.AsyncClient(base_url=address, headers=HEADERS, timeout=120, limits=limits) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(1000)))

    with running(service) as address:
        assert asyncio.run(ask_all(address)) == [True] * 1000
        assert metric(address, "appraiser_places_taken") == 0
    assert max(echo.batches) > 4  # they were answered together


@pytest.mark.parametrize("seconds", [3.0, pytest.param(15.0, marks=pytest.mark.soak)])
def test_ten_times_what_can_be_served_is_refused_at_once(tmp_path, seconds):
    """Capacity is 8 a second for each worker: 2 rows a batch of 0.25 s. The clients, which share the machine with the
    service, ask some 90 times a second."""
    service = tiny_service(tmp_path, Echo(0.25), num_places=16, max_rows=2, deadline_s=30)
    data = jpeg(1)

    async def keep_asking(client: httpx.AsyncClient, ends: float, seen: list[tuple[int, float, str]]) -> None:
        while time.monotonic() < ends:
            began = time.monotonic()
            answer = await client.post("/v1/appraise", content=data)
            seen.append((answer.status_code, time.monotonic() - began, answer.headers.get("retry-after", "")))
            if answer.status_code == 429:
                await asyncio.sleep(0.05)

    async def overload(address: str) -> list[tuple[int, float, str]]:
        seen: list[tuple[int, float, str]] = []
        limits = httpx.Limits(max_connections=160)
        async with httpx.AsyncClient(base_url=address, headers=HEADERS, timeout=60, limits=limits) as client:
            ends = time.monotonic() + seconds
            await asyncio.gather(*(keep_asking(client, ends, seen) for _ in range(128)))
        return seen

    with running(service) as address:
        memory = psutil.Process().memory_info().rss
        seen = asyncio.run(overload(address))
        grown = psutil.Process().memory_info().rss - memory
        assert metric(address, "appraiser_places_taken") == 0
        refused = metric(address, "appraiser_refused_total")
    counts = Counter(status for status, _, _ in seen)
    assert set(counts) == {200, 429}
    assert counts[200] > 20
    assert counts[429] == refused > 2 * counts[200]
    assert all(1 <= int(wait) <= 60 for status, _, wait in seen if status == 429)
    assert grown < 100 << 20
    slowest = statistics.quantiles([spent for status, spent, _ in seen if status == 429], n=100)[98]
    print(f"{counts[200]} answered, {counts[429]} refused, 99 % of them within {1000 * slowest:.0f} ms (client's side)")


def test_clients_that_leave_free_their_places(tmp_path):
    """200 leave at different moments; the model would have taken a minute for each."""
    service = tiny_service(tmp_path, Echo(60), num_places=250, deadline_s=120)
    data = jpeg(1)

    async def leave(client: httpx.AsyncClient, number: int) -> None:
        with pytest.raises(httpx.TimeoutException):
            await client.post("/v1/appraise", content=data, timeout=httpx.Timeout(20, read=0.3 + number % 40 / 40))

    async def leave_all(address: str) -> None:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=address, headers=HEADERS, limits=limits) as client:
            await asyncio.gather(*(leave(client, number) for number in range(200)))

    with running(service) as address:
        asyncio.run(leave_all(address))
        seconds = until(lambda: metric(address, "appraiser_places_taken") == 0)
        assert metric(address, "appraiser_clients_left_total") == 200
        assert service.engine.num_waiting == 0
        # The workers are free as well: the next one is answered, not kept waiting for a minute.
        service.engine.answerers["appraise"].seconds = 0.0
        assert httpx.post(f"{address}/v1/appraise", content=data, headers=HEADERS, timeout=20).status_code == 200
    print(f"the last place was free {seconds:.2f} s after the last client had left")


def test_a_reader_of_a_stream_that_leaves_ends_the_writing(tmp_path):
    service = tiny_service(tmp_path)  # a real model, which would write 512 tokens
    body = {"model": "tiny", "stream": True, "max_tokens": 512, "temperature": 1.9,
            "messages": [{"role": "user", "content": "Write on and on."}]}  # fmt: skip
    with running(service) as address:
        for _ in range(5):
            with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=30) as answer:
                assert answer.status_code == 200
                lines = answer.iter_lines()
                next(lines), next(lines), next(lines)
        until(lambda: metric(address, "appraiser_places_taken") == 0)
        until(lambda: not service.engine._running)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The command, in a process of its own, on the embedded model."""
    folder = tmp_path_factory.mktemp("served")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "appraiser", "serve", "phi3v-tiny", "--port", "0", "--places", "300"],
        stderr=subprocess.PIPE, text=True, env=environment, cwd=folder,
    )  # fmt: skip
    line = process.stderr.readline()
    address = re.search(r"http://\S+", line)
    assert address, line
    yield process, address[0]
    process.kill()
    process.wait()
    process.stderr.close()


def test_an_end_under_load_breaks_no_accepted_request(served):
    process, address = served
    data = jpeg(2, (300, 300))

    async def ask(client: httpx.AsyncClient) -> str:
        return str((await client.post("/v1/appraise", content=data)).status_code)

    async def ask_late(client: httpx.AsyncClient) -> str:
        try:
            return await ask(client)
        except (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            return "not accepted"

    async def accepted(client: httpx.AsyncClient, asked: list[asyncio.Task[str]]) -> None:
        """Every request that is not answered yet has its place."""
        while True:
            numbers = (await client.get("/metrics")).text
            taken = float(re.search(r"^appraiser_places_taken (\S+)$", numbers, re.M)[1])
            if any(task.done() for task in asked) and taken >= sum(not task.done() for task in asked):
                return
            await asyncio.sleep(0.05)

    async def ask_and_end() -> tuple[Counter[str], Counter[str]]:
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=address, headers=HEADERS, timeout=60, limits=limits) as client:
            await asyncio.wait_for(ready(client), 60)
            asked = [asyncio.create_task(ask(client)) for _ in range(24)]
            await asyncio.wait_for(accepted(client, asked), 60)
            process.send_signal(signal.SIGTERM)
            late = [asyncio.create_task(ask_late(client)) for _ in range(10)]
            return Counter(await asyncio.gather(*asked)), Counter(await asyncio.gather(*late))

    async def ready(client: httpx.AsyncClient) -> None:
        while True:
            try:
                if (await client.get("/ready")).status_code == 200:
                    return
            except httpx.ConnectError:
                pass
            await asyncio.sleep(0.1)

    counts, late = asyncio.run(ask_and_end())
    assert counts == {"200": 24}
    assert set(late) <= {"200", "not accepted"}, late
    process.wait(timeout=30)
    assert process.returncode in (0, -signal.SIGTERM, 143)
    log = process.stderr.read()
    assert "Traceback" not in log
    assert not re.search(r"image/jpeg|/v1/appraise\?", log)


def test_the_command_refuses_what_would_be_open_to_all(appraiser, tmp_path):
    outcome = appraiser("serve", "phi3v-tiny", "--host", "0.0.0.0", "--port", "0")
    assert outcome.code == 2
    assert "no key" in outcome.err
    (tmp_path / "keys").write_text("short\n")
    outcome = appraiser("serve", "phi3v-tiny", "--key-file", tmp_path / "keys")
    assert outcome.code == 2
    assert "shorter than 16" in outcome.err
    outcome = appraiser("serve", tmp_path / "nothing", "--port", "0")
    assert outcome.code == 3
    assert "no model" in outcome.err


def test_who_waits_when_the_grace_is_over_is_told(tmp_path):
    """The model takes a minute, the grace is a second: clients get an answer of the service's own, not a cut line."""
    service = tiny_service(tmp_path, Echo(60), grace_s=1.0, deadline_s=100)
    with ThreadPoolExecutor(2) as pool:
        with running(service) as address:
            asked = [
                pool.submit(httpx.post, f"{address}/v1/appraise", content=jpeg(1), headers=HEADERS, timeout=60)
                for _ in range(2)
            ]
            until(lambda: service.engine._running)
        answers = [one.result() for one in asked]
    assert [answer.status_code for answer in answers] == [503, 503]
    assert {answer.json()["error"]["code"] for answer in answers} == {"ending"}


def test_a_port_in_use_is_said_before_the_model_is_loaded(appraiser):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        outcome = appraiser("serve", Path("nothing"), "--port", taken.getsockname()[1])
    assert outcome.code == 2
    assert "something else listens there" in outcome.err
