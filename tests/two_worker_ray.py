"""A Ray of two workers on loopback, in which tests run what clusters do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def two_worker_ray() -> Iterator[str]:
    """Connected to by this process while the body runs; its address. RAY_TMPDIR has to be short: sockets' names are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Ray's own settings, when they are copied
        import ray

        ray.init(
            "local", num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False,
            _node_ip_address="127.0.0.1",
        )  # fmt: skip
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()
