"""The command `verify`: whether a folder or a server gives what an export gave."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from appraiser.cli.app import emit
from appraiser.cli.options import Json
from appraiser.console import stages

NOT_AS_TRAINED = 3


def verify(
    target: Annotated[
        str, typer.Argument(help="Export or a copy of one; or http(s):// address of an OpenAI-compatible server.")
    ],
    reference: Annotated[
        Path | None, typer.Option(help="Export that it has to answer like; default: the folder itself.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="Server: file whose first line is the key, sent as a bearer token.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Server: what it calls the model; default: the only one that it lists.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=1e-9, help="Nats that probabilities may be apart; unset: 0.1 for servers, 0.001 for folders."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay an export's reference pictures elsewhere: do picture, crops, prompt and template arrive as trained?

    What differs is named, and known mistakes are tried on the export's own weights to find the cause. Exit code 3 if it
    is not as trained.

    Example:  appraiser verify exported/first

    Example:  appraiser verify http://127.0.0.1:8000 --reference exported/first
    """
    from appraiser.verifying.verify import verify as run_verify

    with stages() as report:
        verdict = run_verify(
            target, reference=reference, key_file=key_file, model=model, tolerance=tolerance, progress=report
        )
    lines = [finding.text for finding in verdict.findings]
    lines.append("As trained." if verdict.is_as_trained else "NOT as trained.")
    emit(verdict.as_dict(), as_json, "\n".join(lines))
    if not verdict.is_as_trained:
        raise typer.Exit(NOT_AS_TRAINED)
