"""The Ray cluster that `--on ray` uses: found, or started here and ended again."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from appraiser.errors import AppraiserError, ConfigError, MissingDependencyError


@contextmanager
def connected(work: str) -> Iterator[Any]:
    """Connect to Ray's cluster and give the module `ray`; its errors become ours.

    The cluster is the one this process is connected to, else Ray's own choice: RAY_ADDRESS, or what `ray start` started
    on this machine. Where there is none, Ray is started here and ended again.

    Args:
        work: what needs it, for messages: "building", "training".

    Raises:
        MissingDependencyError: ray is not installed.
        ConfigError: no cluster answers at the address.
        AppraiserError: the cluster could not do its part.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError(
            f"{work} on Ray needs the package ray", where=str(error), fix="pip install 'appraiser[ray]'"
        ) from error
    is_ours = not ray.is_initialized()
    if is_ours:
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"cannot connect to Ray: {cause(error)}",
                fix="check RAY_ADDRESS (host:port, from a machine of the cluster), or unset it to start Ray here",
            ) from error
    try:
        yield ray
    except ray.exceptions.RayError as error:
        raise AppraiserError(
            f"the Ray cluster could not do its part: {cause(error)}",
            fix="install the same appraiser on all its machines, then try again: what was done is kept",
        ) from error
    finally:
        if is_ours:
            ray.shutdown()


def cause(error: BaseException) -> str:
    """What happened, out of Ray's many lines: the last exception named, around which stand frames and advice."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line for line in reversed(lines) if re.match(r"[\w.]+(Error|Exception): ", line)), lines[-1])
