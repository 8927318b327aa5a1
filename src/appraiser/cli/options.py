"""Options that several commands take, and what they are read into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from appraiser.errors import ConfigError

if TYPE_CHECKING:
    from appraiser.data.fetch import FetchPolicy

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Closed = Annotated[list[str], typer.Option(help="Field whose answers must be values of training, e.g. category.")]
AnswerShare = Annotated[
    float | None,
    typer.Option(
        min=0.05, max=1, help="Leave prices out where the model is less sure than on this share of usual products."
    ),
]
AllowPrivate = Annotated[list[str], typer.Option(help="HOST:PORT of your own picture server.")]
PerHost = Annotated[
    int, typer.Option(min=1, max=256, help="Pictures fetched from one host at a time; more only from your own.")
]
IgnoreRobots = Annotated[
    bool, typer.Option("--ignore-robots", help="The pictures are your own: robots.txt does not matter.")
]


def fetch_policy(allow_private: list[str], per_host: int, ignore_robots: bool) -> FetchPolicy:
    """Limits of fetching, as `build` and `predict` take them."""
    from appraiser.data.fetch import FetchPolicy

    return FetchPolicy(
        allow_private=frozenset(allow_private),
        num_parallel=max(64, per_host),
        num_parallel_per_host=per_host,
        respect_robots=not ignore_robots,
    )


def field_columns(pairs: list[str]) -> dict[str, list[str]]:
    """`--map field=column|column`, read."""
    fields: dict[str, list[str]] = {}
    for pair in pairs:
        field, equals, columns = pair.partition("=")
        if not equals or not field:
            raise ConfigError(f"cannot read --map {pair!r}", fix="write --map field=column, e.g. --map title=name")
        fields[field.strip()] = [column for column in columns.split("|") if column]
    return fields
