"""An evaluation in W&B: its numbers, and one table of pictures with truth and prediction, worst first.

Pictures and answers leave the machine only with mode `online`, which has to be asked for.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from appraiser.backbone import first_line
from appraiser.data.pictures import decode
from appraiser.errors import MissingDependencyError
from appraiser.evaluation.evaluate import EvalResult, config_of
from appraiser.evaluation.report.judged import judge
from appraiser.evaluation.scores import part_fields

MAX_ROWS = 300
THUMBNAIL_SIDE = 160
DEFAULT_PROJECT = "appraiser"
GROUPS = ("controls", "baselines")

_log = logging.getLogger(__name__)

Mode = Literal["offline", "online"]


def log_result(result: EvalResult, model: str, folder: Path, asked: Mode | Literal["off"] | None) -> None:
    """Log as asked; if nothing was, offline where the evaluated run was tracked and W&B is still there.

    The reports are written by then: what W&B raises without having been asked for is a warning.
    """
    config = config_of(model)
    tracked = config is not None and config.tracking.wandb != "off" and importlib.util.find_spec("wandb") is not None
    mode = asked or ("offline" if tracked else "off")
    if mode == "off":
        return
    try:
        log_evaluation(result, folder, mode, config.tracking.project if config else DEFAULT_PROJECT)
    except Exception as error:  # W&B raises whatever happens in it, from OSError to its own kinds
        if asked is not None:
            raise
        _log.warning("W&B failed (%s: %s): the scores are in report.json only", type(error).__name__, first_line(error))


def log_evaluation(result: EvalResult, folder: Path, mode: Mode, project: str) -> int:
    """Log an evaluation as a W&B run of its own below `folder`/wandb.

    Returns:
        Rows of the table: the worst, at most MAX_ROWS.

    Raises:
        MissingDependencyError: W&B is not installed.
    """
    try:
        import wandb
    except ImportError:
        raise MissingDependencyError("W&B is not installed", fix="pip install 'appraiser[wandb]'") from None
    (folder / "wandb").mkdir(parents=True, exist_ok=True)
    with _kept_in(folder / "wandb"):
        return _log_run(wandb, result, folder, mode, project)


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    """Pictures of a table wait for their upload in the user's home; here they stay with the run that needs them."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = before or str(folder.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]


def _log_run(wandb: Any, result: EvalResult, folder: Path, mode: Mode, project: str) -> int:
    scores = result.scores
    fields = list(part_fields(scores))
    columns = ["id", "picture", *(f"{kind} {field}" for field in fields for kind in ("true", "predicted")), "answer"]
    table = wandb.Table(columns=columns)
    judged = judge(result.records, result.predictions, fields)[:MAX_ROWS]
    for product in judged:
        record, prediction = product.record, product.prediction
        picture = decode(record.images[0])
        picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        values: list[Any] = []
        for field in fields:
            values += [record.value(field), prediction.fields.get(field)]
        table.add_data(record.id, wandb.Image(picture, file_type="jpg"), *values, prediction.text)
    with wandb.init(
        project=project,
        job_type="evaluation",
        name=f"{Path(scores['model']).name} on {scores['split']}",
        dir=str(folder.resolve()),  # its service may have started in another place
        mode=mode,
        config={key: scores[key] for key in ("model", "dataset", "dataset_sha256", "split", "n", "appraiser")},
        settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        reinit="create_new",
    ) as run:  # closed also if logging fails: an open run would hold the process up at its end
        run.log(numbers(result) | {"evaluation": table})
    return len(judged)


def numbers(result: EvalResult) -> dict[str, float]:
    """The scores of the model and of what it is compared with, under names such as `knn/price/median_ape`."""
    found = _flat("model", result.scores)
    for group in GROUPS:
        for name, part in result.scores.get(group, {}).items():
            found |= _flat(name, part)
    for name in ("before", "oracle", "reasoning"):
        if name in result.scores:
            found |= _flat(name, result.scores[name])
    return found


def _flat(name: str, part: dict[str, Any]) -> dict[str, float]:
    """Metric objects of a part and of its fields, by path."""
    found: dict[str, float] = {}
    for key, value in (part | part_fields(part)).items():
        if isinstance(value, dict) and "value" in value:
            found[f"{name}/{key}"] = float(value["value"])
        elif key in part_fields(part):
            found |= _flat(f"{name}/{key}", value)
    return found
