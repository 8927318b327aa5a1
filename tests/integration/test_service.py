"""The service from outside: real requests on loopback to a real, tiny model."""

import base64
import json
import os
import re
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from network import watched_connections
from services import SETTINGS, Echo, jpeg, looks, picture_of, running, tiny_service

from appraiser.data.task import QUESTIONS
from appraiser.predict import Predictor
from appraiser.serving.evidence import Evidence
from appraiser.serving.service import Service

LEAKS = re.compile(r"0x[0-9a-f]{6,}|Traceback|/(?:work|tmp|root|home|usr)/|\.py\b")


def data_url(data: bytes, kind: str = "jpeg") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """The embedded model, which writes product answers."""
    return Predictor.load("phi3v-tiny")


@pytest.fixture(scope="module")
def address(predictor):
    """The embedded model behind a server."""
    service = Service(predictor, replace(SETTINGS, model_name="phi3v-tiny"), Evidence.none(), [jpeg(1), jpeg(2)])
    with running(service) as found:
        yield found


@pytest.fixture(scope="module")
def real_picture(request) -> bytes:
    """A photograph where the reference material is there, else a drawn picture."""
    shared = Path(os.environ.get("APPRAISER_SHARED", Path(__file__).parents[3] / "shared"))
    photos = sorted((shared / "real/outdoor_shop/images").glob("*.jpg"))
    return photos[0].read_bytes() if photos else jpeg(3, (448, 448))


@pytest.fixture
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as found:
        yield found


def question(data: bytes, text: str = QUESTIONS["en"]) -> list:
    content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": data_url(data)}}]
    return [{"role": "user", "content": content}]


# ------------------------------------------------------------------------------------------------------- appraise


def test_a_picture_gives_the_predictors_own_answer(address, predictor, real_picture):
    answer = httpx.post(
        f"{address}/v1/appraise", content=real_picture, headers={"content-type": "image/jpeg"}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    [expected] = predictor.predict([picture_of(real_picture)])
    found = answer.json()
    assert found["text"] == expected.text
    assert found["fields"] == expected.fields
    assert found["price"] == expected.price
    assert found["confidence"] == pytest.approx(expected.confidence, abs=1e-3)
    assert found["model"] == "phi3v-tiny"
    assert found["latency_ms"]["total"] >= found["latency_ms"]["answering"] > 0


def test_several_pictures_are_one_product(address, predictor):
    pictures = [jpeg(1), jpeg(2, kind="PNG"), jpeg(3, kind="WEBP")]
    answer = httpx.post(
        f"{address}/v1/appraise", json={"pictures": [data_url(data) for data in pictures]}, timeout=60
    ).json()
    [expected] = predictor.predict([[picture_of(data) for data in pictures]])
    assert answer["text"] == expected.text


def test_the_service_says_what_it_serves(address):
    models = httpx.get(f"{address}/v1/models").json()
    assert [model["id"] for model in models["data"]] == ["phi3v-tiny"]
    about = httpx.get(f"{address}/v1/about").json()
    assert about["fields"] == ["title", "category", "price"]
    assert about["num_samples"] == 2
    assert httpx.get(f"{address}/v1/samples/1").content == jpeg(2)
    assert httpx.get(f"{address}/v1/samples/2").status_code == 404


def test_readiness_is_proved_by_an_answer(address):
    assert httpx.get(f"{address}/health").json() == {"status": "ok"}
    assert httpx.get(f"{address}/ready", timeout=30).json() == {"status": "ok"}
    numbers = httpx.get(f"{address}/metrics").text
    assert re.search(r'appraiser_requests_total\{route="/ready",status="200"\} [1-9]', numbers)
    assert re.search(r"appraiser_batch_rows_count [1-9]", numbers)


def test_a_model_that_fails_is_not_ready_and_nobody_learns_why(tmp_path):
    def broken(jobs):
        raise RuntimeError("secret: /root/key.py at 0x7f0000000000")

    with running(tiny_service(tmp_path, broken)) as address:
        answer = httpx.get(f"{address}/ready", timeout=30)
        assert answer.status_code == 503
        asked = httpx.post(f"{address}/v1/appraise", content=jpeg(), headers={"content-type": "image/jpeg"})
        assert asked.status_code == 500
        assert asked.json()["error"]["code"] == "internal"
        assert not LEAKS.search(answer.text + asked.text)
        assert "secret" not in answer.text + asked.text


# ----------------------------------------------------------------------------------------------------- the client


def test_the_openai_client_gets_an_answer_about_a_real_picture(client, predictor, real_picture):
    answer = client.chat.completions.create(model="phi3v-tiny", messages=question(real_picture))
    [expected] = predictor.predict([picture_of(real_picture)])
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == ("stop" if expected.stopped else "length")
    assert answer.usage.completion_tokens == expected.num_tokens
    prompt = next(iter(predictor.prompts([picture_of(real_picture)])))
    assert answer.usage.prompt_tokens == len(prompt.input_ids)


def test_the_openai_client_gets_the_same_answer_as_a_stream(client, real_picture):
    whole = client.chat.completions.create(model="phi3v-tiny", messages=question(real_picture))
    chunks = list(
        client.chat.completions.create(
            model="phi3v-tiny", messages=question(real_picture), stream=True, stream_options={"include_usage": True}
        )
    )
    parts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(parts) == whole.choices[0].message.content
    assert len(parts) > 5
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage


def test_logprobs_are_those_of_the_tokens(client, predictor, real_picture):
    answer = client.chat.completions.create(
        model="phi3v-tiny", messages=question(real_picture), logprobs=True, top_logprobs=3
    )
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens - (answer.choices[0].finish_reason == "stop")
    for token in tokens:
        assert token.logprob <= 0
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob)  # greedy: the likeliest is chosen
        assert [top.logprob for top in token.top_logprobs] == sorted(
            (top.logprob for top in token.top_logprobs), reverse=True
        )


def test_max_tokens_ends_an_answer_in_mid_sentence(client, real_picture):
    whole = client.chat.completions.create(model="phi3v-tiny", messages=question(real_picture))
    cut = client.chat.completions.create(model="phi3v-tiny", messages=question(real_picture), max_tokens=4)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage.completion_tokens == 4
    assert whole.choices[0].message.content.startswith(cut.choices[0].message.content)


def test_a_temperature_draws_and_a_seed_draws_the_same_again(client, real_picture):
    def draw(seed: int, temperature: float = 1.5) -> str:
        answer = client.chat.completions.create(
            model="phi3v-tiny", messages=question(real_picture), temperature=temperature, seed=seed
        )
        return answer.choices[0].message.content

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(4)}) > 1
    assert draw(1, 0.0) == draw(2, 0.0)


def test_a_short_answer_does_not_wait_for_the_longest_of_its_batch(tmp_path):
    """Two chats in one batch: 2 tokens and 512; the first is answered while the second is written."""
    service = tiny_service(tmp_path, max_answer_tokens=2000, num_places=8, deadline_s=100)
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "Go on."}], "temperature": 1.9, "seed": 3}
    with running(service) as address, ThreadPoolExecutor(4) as pool:

        def ask(max_tokens: int) -> Future[httpx.Response]:
            body = asked | {"max_tokens": max_tokens}
            return pool.submit(httpx.post, f"{address}/v1/chat/completions", json=body, timeout=90)

        # What keeps the workers busy meanwhile, so that the two are taken together.
        busy = [ask(400) for _ in range(service.engine.num_workers)]
        until_running(service, len(busy))
        long, short = ask(1500), ask(2)
        assert short.result().json()["usage"]["completion_tokens"] == 2
        assert not long.done()
        assert all(one.result().status_code == 200 for one in [*busy, long])


def until_running(service, count):
    deadline = time.monotonic() + 20
    while sum(len(jobs) for jobs in list(service.engine._running.values())) < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_decoder_that_is_killed_while_it_waits_costs_nothing(quick):
    ask = lambda: httpx.post(f"{quick}/v1/appraise", content=jpeg(), headers={"content-type": "image/jpeg"}, timeout=60)  # noqa: E731
    assert ask().status_code == 200
    workers = [
        child
        for child in psutil.Process().children(recursive=True)
        if child.parent().pid != os.getpid() and "forkserver" in " ".join(child.cmdline() + child.parent().cmdline())
    ]
    assert workers
    for worker in workers:
        worker.kill()
    time.sleep(1.0)
    assert [ask().status_code for _ in range(3)] == [200] * 3


def test_what_would_be_ignored_is_refused(quick):
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
    for more, word in (({"stream": True, "logprobs": True}, "logprobs"), ({"stop": ["x"]}, "stop")):
        answer = httpx.post(f"{quick}/v1/chat/completions", json=asked | more)
        assert answer.status_code == 422
        assert word in answer.json()["error"]["message"]


def test_errors_reach_the_client_as_its_own(client, real_picture):
    with pytest.raises(openai.NotFoundError, match="one model"):
        client.chat.completions.create(model="other", messages=question(real_picture))
    with pytest.raises(openai.UnprocessableEntityError, match="top_p"):
        client.chat.completions.create(model="phi3v-tiny", messages=question(real_picture), top_p=0.5)
    with pytest.raises(openai.UnprocessableEntityError, match="512"):
        client.chat.completions.create(model="phi3v-tiny", messages=question(real_picture), max_tokens=513)
    with pytest.raises(openai.BadRequestError, match="tokens"):
        client.chat.completions.create(model="phi3v-tiny", messages=question(real_picture, "bag " * 9000))


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A service that answers with a hash, of small limits."""
    service = tiny_service(
        tmp_path_factory.mktemp("model"), Echo(), max_body_bytes=200_000, max_pictures=3, body_timeout_s=1.0
    )
    with running(service) as found:
        yield found


BAD_BODIES = [
    (b"", "image/jpeg", 422, "empty"),
    (b"GIF89a", "image/gif", 422, "not_an_image|truncated"),
    (jpeg()[:400], "image/jpeg", 422, "truncated"),
    (b"BM" + b"0" * 100, "image/png", 422, "unsupported_format"),
    (jpeg(size=(2000, 1400), kind="PNG"), "image/png", 413, "body_too_large"),
    (jpeg(size=(2000, 10)), "image/jpeg", 422, "too_thin"),
    (jpeg(), "text/html", 415, "unsupported_type"),
    (jpeg(), "", 415, "unsupported_type"),
    (b"{", "application/json", 400, "not_json"),
    (b"[]", "application/json", 422, "invalid_field"),
    (b'{"pictures": []}', "application/json", 422, "invalid_field"),
    (b'{"pictures": ["data:image/png;base64,???"]}', "application/json", 422, "bad_data_url"),
    (b'{"pictures": ["data:text/html,x"]}', "application/json", 422, "bad_data_url"),
    (b'{"pictures": ["/etc/passwd"]}', "application/json", 422, "remote_urls_off"),
    (b'{"pictures": ["file:///etc/passwd"]}', "application/json", 422, "remote_urls_off"),
    (b'{"pictures": ["x"], "canary": 1}', "application/json", 422, "unknown_field"),
    (json.dumps({"pictures": [data_url(jpeg())] * 4}).encode(), "application/json", 422, "number_of_pictures"),
    (json.dumps({"pictures": [data_url(jpeg()), data_url(b"x")]}).encode(), "application/json", 422, "not_an_image"),
]


@pytest.mark.parametrize(("body", "kind", "status", "code"), BAD_BODIES)
def test_a_bad_body_is_refused_with_its_reason(quick, body, kind, status, code):
    headers = {"content-type": kind} if kind else {}
    answer = httpx.post(f"{quick}/v1/appraise", content=body, headers=headers, timeout=30)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert re.fullmatch(code, error["code"]), error
    assert not LEAKS.search(answer.text)
    assert "passwd" not in answer.text


def test_the_second_of_two_pictures_is_named(quick):
    body = {"pictures": [data_url(jpeg()), data_url(jpeg()[:300])]}
    answer = httpx.post(f"{quick}/v1/appraise", json=body).json()
    assert answer["error"]["message"].startswith("picture 2 ")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.jpg", "https://192.0.2.7/x.jpg", "http://shop.example/x.jpg"])
def test_a_url_is_refused_without_a_connection(quick, url):
    service = int(quick.rpartition(":")[2])
    with httpx.Client() as asking, watched_connections() as seen:
        plain = asking.post(f"{quick}/v1/appraise", json={"pictures": [url]})
        content = [{"type": "image_url", "image_url": {"url": url}}]
        body = {"model": "tiny", "messages": [{"role": "user", "content": content}]}
        chat = asking.post(f"{quick}/v1/chat/completions", json=body)
    assert plain.json()["error"]["code"] == chat.json()["error"]["code"] == "remote_urls_off"
    assert {port for _, port in seen} == {service}


def test_a_body_that_does_not_end_is_cut_off(quick):
    def endless():
        while True:
            yield b"0" * 4096

    answer = httpx.post(f"{quick}/v1/appraise", content=endless(), headers={"content-type": "image/jpeg"})
    assert answer.status_code == 413

    host, port = quick.removeprefix("http://").split(":")
    import socket

    with socket.create_connection((host, int(port)), timeout=20) as slow:
        slow.sendall(
            b"POST /v1/appraise HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 99\r\n\r\nx"
        )
        assert b"408" in slow.recv(4096).split(b"\r\n")[0]


@pytest.mark.parametrize(("value", "status"), [("0.05", 503), ("x", 422), ("-1", 422), ("nan", 422), ("60", 200)])
def test_a_client_may_ask_for_an_earlier_deadline(tmp_path, value, status):
    with running(tiny_service(tmp_path, Echo(0.6))) as address:
        headers = {"content-type": "image/jpeg", "x-deadline-s": value}
        answer = httpx.post(f"{address}/v1/appraise", content=jpeg(), headers=headers, timeout=30)
        assert answer.status_code == status, answer.text


def test_only_the_page_and_the_api_are_there(quick):
    for path in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.js/..%2f..%2fsettings.py", "/docs", "/redoc",
                 "//page.js", "/static/../app.py", "/..%5c..%5capp.py"):  # fmt: skip
        answer = httpx.request("GET", quick + path)
        assert answer.status_code == 404, path
        assert not LEAKS.search(answer.text)
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        answer = httpx.get(quick + path)
        assert answer.headers["content-type"].startswith(kind)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in answer.text


def test_pictures_come_from_own_servers_where_that_is_allowed(tmp_path):
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "shop"))

        def log_message(self, *arguments):
            pass

    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/bag.jpg").write_bytes(jpeg(5))
    shop = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    Thread(target=shop.serve_forever, daemon=True).start()
    own = f"127.0.0.1:{shop.server_port}"
    service = tiny_service(tmp_path / "model", Echo(), allow_urls=True, allow_private=frozenset({own}))
    try:
        with running(service) as address:
            ask = lambda url: httpx.post(f"{address}/v1/appraise", json={"pictures": [url]}, timeout=30)  # noqa: E731
            assert ask(f"http://{own}/bag.jpg").json()["title"] == looks(service.predictor, jpeg(5))
            assert ask(f"http://{own}/none.jpg").json()["error"]["code"] == "fetch_http_4xx"
            blocked = ask(f"http://127.0.0.1:{address.rpartition(':')[2]}/v1/samples/0").json()
            assert blocked["error"]["code"] == "fetch_blocked_address"
    finally:
        shop.shutdown()
        shop.server_close()


def test_similar_products_and_usual_prices_come_with_the_answer(tmp_path):
    from appraiser import build_dataset, make_catalogue
    from appraiser.data.dataset import open_dataset
    from appraiser.serving.evidence import gather, identity_of

    make_catalogue(tmp_path / "catalogue", 80, seed=3, size=64)
    build_dataset(tmp_path / "catalogue", tmp_path / "dataset")
    data = open_dataset(tmp_path / "dataset")
    predictor = Predictor.load("phi3v-tiny")
    known = gather(data, predictor.backbone, 30)
    assert len(known.products) == 30
    identity = identity_of(tmp_path, data, 30)
    known.save(tmp_path / "evidence", identity)
    again = Evidence.load(tmp_path / "evidence", identity)
    assert Evidence.load(tmp_path / "evidence", identity + "x") is None
    service = Service(predictor, SETTINGS, again)
    positions = [record.id for record in data.split("train")]
    same = data.split("train")[positions.index(known.products[7].id)]
    with running(service) as address:
        answer = httpx.post(
            f"{address}/v1/appraise", content=same.images[0], headers={"content-type": "image/jpeg"}, timeout=30
        ).json()
    assert answer["similar"][0]["id"] == same.id  # itself
    assert answer["similar"][0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert len(answer["similar"]) == 4
    assert answer["similar"][0]["thumbnail"].startswith("data:image/jpeg;base64,")
    ranges = again.ranges
    assert ranges
    assert all(found.low <= found.median <= found.high for found in ranges.values())
    shutil.rmtree(tmp_path / "evidence")
    assert Evidence.load(tmp_path / "evidence", identity) is None
