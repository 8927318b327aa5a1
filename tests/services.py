"""Services for tests: a tiny model behind a real server on loopback, and answerers that stand in for the model."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from tiny import formula_picture, tiny_backbone

from appraiser.predict import Prediction, Predictor
from appraiser.serving.answering import Appraisal, ChatAnswer
from appraiser.serving.engine import Job
from appraiser.serving.evidence import Evidence
from appraiser.serving.run import server_config
from appraiser.serving.service import Service
from appraiser.serving.settings import LOOPBACK, ServiceSettings
from appraiser.trained_task import TrainedTask

SETTINGS = ServiceSettings(model_name="tiny", hosts=LOOPBACK)


def jpeg(number: int = 0, size: tuple[int, int] = (64, 48), kind: str = "JPEG") -> bytes:
    """A picture's file; another one for every number."""
    file = io.BytesIO()
    formula_picture(*size, number).save(file, kind)
    return file.getvalue()


def picture_of(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def looks(predictor: Predictor, data: bytes) -> str:
    """What `Echo` calls a picture: a hash of its pixels as the model sees them."""
    pixels = predictor.backbone.views(picture_of(data)).pixels
    return hashlib.sha256(pixels.numpy().tobytes()).hexdigest()


class Echo:
    """Answers every job with a hash of its own pictures.

    Args:
        seconds: that a batch takes, in steps of a hundredth, at which rows may be given up.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[int] = []

    def __call__(self, jobs: Sequence[Job]) -> list[Any]:
        self.batches.append(len(jobs))
        until = time.monotonic() + self.seconds
        while time.monotonic() < until and any(job.is_wanted for job in jobs):
            time.sleep(0.01)
        return [self._answer(job, len(jobs)) for job in jobs]

    def _answer(self, job: Job, num_together: int) -> Any:
        names = [hashlib.sha256(picture.pixels.numpy().tobytes()).hexdigest() for picture in job.work.pictures]
        text = "+".join(names)
        if job.kind == "chat":
            ids = tuple(range(300, 304))
            for token in ids:
                if job.on_token is not None:
                    job.on_token(token)
            return ChatAnswer(ids, text or "no picture", "stop", len(ids), None)
        fields = {"title": text, "category": "BAGS", "price": 1250.0}
        said = f"Product: {text}, Category: BAGS, Full Price: 1250"
        prediction = Prediction(fields, "GBP", (1000.0, 1500.0), 0.9, said, True, True, 9, (900.0, 1700.0))
        return Appraisal(prediction, [], num_together)


def tiny_service(folder: Path, answerer: Callable[..., Any] | None = None, **changes: Any) -> Service:
    """A service on a tiny model, or on an answerer in its place.

    Args:
        changes: settings, and `evidence` or `samples`.
    """
    given = {name: changes.pop(name) for name in ("evidence", "samples") if name in changes}
    predictor = Predictor(tiny_backbone(folder), TrainedTask(currency="GBP"))
    answerers: Any = None if answerer is None else {"appraise": answerer, "chat": answerer}
    given.setdefault("evidence", Evidence.none())
    return Service(predictor, replace(SETTINGS, **changes), answerers=answerers, **given)


@contextmanager
def running(service: Service) -> Iterator[str]:
    """Serve on a free port of loopback; gives the address."""
    config = server_config(service)
    config.host, config.port = "127.0.0.1", 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended before it began"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
