"""The application: how it starts and ends, and what all commands share."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, Any

import typer

from appraiser import __version__
from appraiser.console import WarningLines
from appraiser.errors import AppraiserError
from appraiser.json_text import json_text

app = typer.Typer(
    name="appraiser",
    help="Fine-tune Phi-3-Vision on your own product pictures: name, category and price, honestly scored.\n\n"
    "Start here, without network or GPU:  appraiser demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
_state = {"debug": False}


def main() -> None:
    """Run the command line; errors of ours print their three lines, anything else keeps its traceback."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("appraiser").handlers = [WarningLines()]
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # warns at import of a kernel that is not needed here
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters of it comes as an error of ours as well
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")  # of 41 s each: 20 for an address where nobody answers
    try:
        app()
    except AppraiserError as error:
        if _state["debug"]:
            raise
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Debug = False,
) -> None:
    _state["debug"] = debug
    if version:
        typer.echo(__version__)
        raise typer.Exit


def emit(document: dict[str, Any], as_json: bool, text: str) -> None:
    """Print the result for a machine or for a person."""
    typer.echo(json_text(document) if as_json else text)
