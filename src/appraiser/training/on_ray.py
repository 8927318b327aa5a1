"""The same run through Ray Train: workers on the cluster's machines, resumed from the newest checkpoint when one dies.

Data set and run folder have to be where every worker finds them under the same path (a shared disk).
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from appraiser.cluster import cause, connected
from appraiser.config import RunConfig, config_from
from appraiser.errors import AppraiserError
from appraiser.training.resuming import SUMMARY
from appraiser.training.trainer import RunSummary, train

MAX_RESTARTS = 3


def train_on_ray(config: RunConfig, num_workers: int | None = None, *, resume: bool = False) -> RunSummary:
    """Train with `num_workers` processes of the cluster; by default one per GPU, or one on a cluster without any.

    Raises:
        MissingDependencyError, ConfigError: as `cluster.connected`, and as `train`.
        AppraiserError: workers failed more than a few times; the last cause is named.
    """
    with connected("training") as ray:
        from ray.train import FailureConfig, ScalingConfig
        from ray.train import RunConfig as RayRunConfig
        from ray.train.torch import TorchTrainer

        logging.getLogger("ray.train").setLevel(logging.ERROR)
        num_gpus = int(ray.cluster_resources().get("GPU", 0))
        out = Path(config.run.out).resolve()
        trainer = TorchTrainer(
            _work,
            train_loop_config={"config": _absolute(config), "resume": resume},
            scaling_config=ScalingConfig(num_workers=num_workers or num_gpus or 1, use_gpu=num_gpus > 0),
            run_config=RayRunConfig(
                name=f"{out.name}-ray", storage_path=str(out.parent), failure_config=FailureConfig(MAX_RESTARTS)
            ),
        )
        try:
            trainer.fit()
        except RuntimeError as error:  # Ray Train's own errors
            raise AppraiserError(
                f"training on Ray failed: {cause(error)}",
                where=str(out),
                fix="mend the cause, then go on with --resume",
            ) from error
    return RunSummary(out=out, **json.loads((out / SUMMARY).read_text(encoding="utf-8")))


def _absolute(config: RunConfig) -> dict[str, Any]:
    """Settings whose paths hold in a worker's own folder."""
    settings = config.model_dump(mode="json")
    settings["run"]["out"] = str(Path(config.run.out).resolve())
    settings["data"]["dataset"] = str(Path(config.data.dataset).resolve())
    if Path(config.model.base).exists():
        settings["model"]["base"] = str(Path(config.model.base).resolve())
    return settings


def _work(settings: dict[str, Any]) -> None:
    """One worker's part; after a restart there is a run to go on with."""
    config = config_from(settings["config"], "Ray")
    begun = (Path(config.run.out) / "config.yaml").is_file()
    if begun and (Path(config.run.out) / SUMMARY).is_file():
        return
    train(config, resume=settings["resume"] or begun)
