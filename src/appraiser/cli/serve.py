"""Commands that answer over the network: serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from appraiser.cli.options import AnswerShare, Closed
from appraiser.console import stderr
from appraiser.errors import ConfigError, MissingDependencyError


def serve(
    model: Annotated[str, typer.Argument(help="Run, model folder, embedded model or Hub id.")],
    host: Annotated[str, typer.Option(help="Address to listen at; others than this machine's own need a key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    key_file: Annotated[Path | None, typer.Option(help="File with the keys that open the service, one a line.")] = None,
    name: Annotated[str | None, typer.Option(help="What clients call the model; default: the folder's name.")] = None,
    products: Annotated[
        Path | None, typer.Option(help="Data set that similar products are from; default: the run's own.")
    ] = None,
    known: Annotated[int, typer.Option(min=0, help="Training products to look for similar ones among.")] = 2000,
    places: Annotated[int, typer.Option(min=1, help="Requests served or waiting at a time; the next gets 429.")] = 64,
    batch: Annotated[int, typer.Option(min=1, max=64, help="Requests answered together.")] = 16,
    deadline: Annotated[float, typer.Option(min=0.1, help="Seconds for a request.")] = 30.0,
    grace: Annotated[float, typer.Option(min=0, help="Seconds for accepted requests when told to end.")] = 20.0,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch pictures from the public internet for clients.")
    ] = False,
    allow_private: Annotated[
        list[str], typer.Option(help="host:port of an own server that pictures may be fetched from.")
    ] = [],  # noqa: B006
    closed: Closed = [],  # noqa: B006
    answer_share: AnswerShare = None,
) -> None:
    """Answer over HTTP: a web page, a typed API and the OpenAI form; ends gracefully on SIGTERM.

    Example:  appraiser serve runs/first
    """
    try:
        from appraiser.serving.run import serve as run_service
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"serving needs {error.name}, which is not installed", fix="pip install 'appraiser[serve]'"
        ) from error
    from appraiser.key_file import read_keys
    from appraiser.serving.settings import MIN_KEY_LENGTH, ServiceSettings, key_hash

    if allow_private and not allow_urls:
        raise ConfigError("--allow-private names servers to fetch from, but nothing is fetched", fix="add --allow-urls")
    settings = ServiceSettings(
        model_name=name or Path(model).resolve().name,
        key_hashes=() if key_file is None else tuple(map(key_hash, read_keys(key_file, MIN_KEY_LENGTH))),
        num_places=places,
        max_rows=batch,
        deadline_s=deadline,
        grace_s=grace,
        allow_urls=allow_urls,
        allow_private=frozenset(allow_private),
    )
    run_service(
        model,
        settings,
        host,
        port,
        products=products,
        num_known=known,
        closed=closed,
        answer_share=answer_share,
        on_ready=lambda address: stderr.print(f"Serving {model} at {address} (ends with Ctrl-C)", highlight=False),
    )
