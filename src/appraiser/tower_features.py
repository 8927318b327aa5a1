"""One vector per picture from the model's own tower: what neighbours are found by, in evaluation and in the service."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from appraiser.backbone import Backbone, side_by_side
from appraiser.data.examples import RecordSequence, views_of
from appraiser.data.pictures import decode

PICTURES_PER_BATCH = 32

Features: TypeAlias = NDArray[np.float32]


def tower_features(records: RecordSequence, backbone: Backbone) -> Features:
    """[n, 2 C] features of each record's first picture's global view."""
    starts = range(0, len(records), PICTURES_PER_BATCH)

    @torch.inference_mode()
    def features(start: int) -> Features:
        chunk = [records[position] for position in range(start, min(start + PICTURES_PER_BATCH, len(records)))]
        views = [views_of([decode(record.images[0])], backbone)[0].pixels[0] for record in chunk]
        return summary(backbone.patch_features(torch.stack(views)))

    with side_by_side(backbone) as in_turn:
        return np.concatenate(list(in_turn(features, starts)))


def summary(patches: Tensor) -> Features:
    """[n, 2 C] mean and spread over the patches of n views, [n, P, C]."""
    patches = patches.float()
    found: Features = torch.cat([patches.mean(1), patches.std(1)], dim=-1).cpu().numpy()
    return found
