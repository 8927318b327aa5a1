"""appraiser: fine-tune Phi-3-Vision on your own product pictures.

    from appraiser import build_dataset, train, evaluate, Predictor, load

Names are loaded when first used: importing the package must not cost the seconds that torch and transformers take.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Predictor": "appraiser.predict",
    "Prediction": "appraiser.predict",
    "build_dataset": "appraiser.data.building.build",
    "evaluate": "appraiser.evaluation.evaluate",
    "export_dataset": "appraiser.data.exports.export",
    "export_model": "appraiser.exporting.export",
    "load": "appraiser.backbone",
    "make_catalogue": "appraiser.data.samples.catalogue",
    "open_dataset": "appraiser.data.dataset",
    "train": "appraiser.training.trainer",
}
__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from appraiser.backbone import load as load
    from appraiser.data.building.build import build_dataset as build_dataset
    from appraiser.data.dataset import open_dataset as open_dataset
    from appraiser.data.exports.export import export_dataset as export_dataset
    from appraiser.data.samples.catalogue import make_catalogue as make_catalogue
    from appraiser.evaluation.evaluate import evaluate as evaluate
    from appraiser.exporting.export import export_model as export_model
    from appraiser.predict import Prediction as Prediction
    from appraiser.predict import Predictor as Predictor
    from appraiser.training.trainer import train as train


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'appraiser' has no attribute {name!r}")
