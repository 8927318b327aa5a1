"""From the command line to a listening service: load, bind, serve, end gracefully."""

from __future__ import annotations

import errno
import logging
import math
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import uvicorn

from appraiser.backbone import SMALL_MODEL
from appraiser.data.dataset import ProductDataset, open_dataset
from appraiser.errors import ConfigError, DataError
from appraiser.exporting.pictures import reference_products
from appraiser.exporting.source import find_source
from appraiser.predict import Predictor
from appraiser.serving.access import log_as_json
from appraiser.serving.app import create_app
from appraiser.serving.evidence import Evidence, gather, identity_of
from appraiser.serving.service import Service
from appraiser.serving.settings import LOOPBACK, ServiceSettings, check_bind

logger = logging.getLogger(__name__)

NUM_SAMPLES = 6
NUM_KNOWN = 2000
EVIDENCE_FOLDER = "evidence"
BACKLOG = 2048
SOCKETS_PER_PLACE = 16
"""Connections beyond the places, which hear 429 at once; more are left to the system's backlog."""


def serve(
    model: str,
    settings: ServiceSettings,
    host: str,
    port: int,
    *,
    products: Path | None = None,
    num_known: int = NUM_KNOWN,
    closed: Sequence[str] = (),
    answer_share: float | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until a signal says to end.

    Args:
        host, port: to listen at; port 0 takes any free one.
        products: data set that similar products and samples are from; None: the run's own.
        num_known: training products among which similar ones are looked for; 0: none.
        on_ready: called with the address once it listens.

    Raises:
        CheckpointError: no model there.
        ConfigError: the address cannot be had, or settings that do not fit the model.
    """
    check_bind(host, settings)
    if host in LOOPBACK and not settings.key_hashes and not settings.hosts:
        settings = replace(settings, hosts=LOOPBACK)
    listener = _listen(host, port)
    try:
        predictor = Predictor.load(model, closed=closed, answer_share=answer_share)
        checkpoint, data = _places(model)
        if products is not None:
            data = open_dataset(products)
        service = Service(predictor, settings, samples=_samples(data))
        if num_known and data is not None:
            _know_products(service, model, checkpoint, data, num_known)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        log_as_json()
        listener.listen(BACKLOG)  # from here on connections wait instead of being refused
        if on_ready:
            on_ready(address)
        uvicorn.Server(server_config(service)).run(sockets=[listener])
    finally:
        listener.close()


def server_config(service: Service) -> uvicorn.Config:
    """How the server under a service is to run; where it listens is not part of it."""
    settings = service.settings
    return uvicorn.Config(
        create_app(service),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=math.ceil(settings.grace_s),
        h11_max_incomplete_event_size=64 << 10,
        limit_concurrency=settings.num_places * SOCKETS_PER_PLACE,
        backlog=BACKLOG,
        lifespan="on",
    )


def _listen(host: str, port: int) -> socket.socket:
    """Bind before the model is loaded: a port in use is said at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        in_use = getattr(error, "errno", None) == errno.EADDRINUSE
        reason = "something else listens there" if in_use else getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot listen at {host}:{port}: {reason}", fix="choose another --port or --host") from None
    return listener


def _places(model: str) -> tuple[Path | None, ProductDataset | None]:
    """The checkpoint's folder and the data set of its run, as far as they can be found."""
    if not Path(model).is_dir():
        return None, None
    source = find_source(model)
    return source.folder, source.data


def _samples(data: ProductDataset | None) -> list[bytes]:
    return [product.pictures[0] for product in reference_products(data, NUM_SAMPLES)]


def _know_products(service: Service, model: str, checkpoint: Path | None, data: ProductDataset, num_known: int) -> None:
    """Similar products: as the last start left them, or looked at now, while the service answers without them."""
    if checkpoint is None:
        return
    backbone = service.predictor.backbone
    if backbone.device.type == "cpu" and backbone.num_parameters > SMALL_MODEL:
        logger.warning("similar products are not shown: on a CPU, looking at %d pictures would take hours", num_known)
        return
    folder = Path(model) / EVIDENCE_FOLDER
    identity = identity_of(checkpoint, data, num_known)
    known = Evidence.load(folder, identity)
    if known is not None:
        service.appraiser.evidence = known
        return

    def look() -> None:
        torch.set_num_threads(1)
        try:
            found = gather(data, backbone, num_known)
        except DataError as error:
            logger.warning("similar products are not shown: %s", error.what)
            return
        except Exception:  # of a thread that nobody waits for
            logger.exception("similar products are not shown")
            return
        service.appraiser.evidence = found
        found.save(folder, identity)
        logger.info("similar products are shown from now on", extra={"facts": {"products": len(found.products)}})

    threading.Thread(target=look, name="evidence", daemon=True).start()
