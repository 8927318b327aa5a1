"""What a frozen tower sees in a picture never changes: computed once, kept on disk, used by later runs too.

    <data set>/.features/<tower, processor and arithmetic>/ab/ab12....safetensors      one file per picture

A file's name is the SHA-256 of the picture's bytes, its folder's that of everything that changes what is seen. Files
appear complete or not at all, so several runs may share the folder. Each says whose features it holds, and their
checksum: an exchanged file, or one that a power cut left half empty, is not taken for what it is not.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from appraiser.backbone import Backbone, Features, Views
from appraiser.config import RunConfig
from appraiser.data.pictures import decode
from appraiser.data.records import ProductRecord
from appraiser.errors import ConfigError
from appraiser.training.gradients import autocast

PICTURES_AT_ONCE = 8
LEFT_BEHIND_S = 3600.0


class KeptFeatures:
    """Features of pictures by their bytes.

    Args:
        max_bytes: no more is written once the folder holds so much; what is missing is computed when it is needed.

    Raises:
        ConfigError: the folder cannot be made.
    """

    def __init__(self, folder: Path, backbone: Backbone, config: RunConfig, max_bytes: int) -> None:
        self.backbone, self.config, self.max_bytes = backbone, config, max_bytes
        self.folder = folder / fingerprint(backbone, config)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot keep features in {folder}: {error.strerror or error}",
                fix="set data.features_folder to a folder that can be written, or data.kept_features_gib=0",
            ) from error
        _clear(self.folder)
        self.num_bytes = sum(path.stat().st_size for path in self.folder.glob("*/*.safetensors"))
        self.num_unkept = 0
        """Pictures that did not fit: they are seen again in every epoch."""

    def of(self, pictures: Sequence[bytes]) -> tuple[Features, ...]:
        """Features of a record's pictures, from disk where they are there."""
        found: dict[bytes, Features | None] = {data: self._read(data) for data in pictures}
        missing = [data for data, features in found.items() if features is None]
        for data, seen in zip(missing, self.anew(missing), strict=True):
            self._write(data, seen)
            found[data] = seen
        return tuple(features for data in pictures if (features := found[data]) is not None)

    def anew(self, pictures: Sequence[bytes]) -> tuple[Features, ...]:
        """Features of pictures as the tower sees them now."""
        seen: list[Features] = []
        for start in range(0, len(pictures), PICTURES_AT_ONCE):
            views = [self.backbone.views(decode(data)) for data in pictures[start : start + PICTURES_AT_ONCE]]
            seen += self._see(views)
        return tuple(seen)

    def fill(self, records: Sequence[ProductRecord], progress: Callable[[int], None] | None = None) -> None:
        """See the pictures of these records, several at a time."""
        waiting: list[bytes] = []
        for number, record in enumerate(records, start=1):
            waiting += [data for data in record.images if not self._path(data).exists()]
            if len(waiting) >= PICTURES_AT_ONCE or number == len(records):
                self.of(waiting)
                waiting = []
                if progress:
                    progress(number)

    def _see(self, views: Sequence[Views]) -> list[Features]:
        with autocast(self.config, self.backbone.device):
            seen = self.backbone.see(views)
        # Tensors of inference mode cannot take part in training.
        return [Features(features.patches.clone(), features.size) for features in seen]

    def _path(self, data: bytes) -> Path:
        digest = hashlib.sha256(data).hexdigest()
        return self.folder / digest[:2] / f"{digest}.safetensors"

    def _read(self, data: bytes) -> Features | None:
        path = self._path(data)
        try:
            with safe_open(path, framework="pt") as file:
                facts = file.metadata()
                height, width = json.loads(facts["size"])
                patches = file.get_tensor("patches")
            if facts["picture"] != path.stem or facts["crc32"] != _sum(patches):
                return None
            return Features(patches, (height, width))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None  # absent, or damaged: seen and written again

    def _write(self, data: bytes, features: Features) -> None:
        if self.num_bytes + features.nbytes > self.max_bytes:
            self.num_unkept += 1
            return
        path, patches = self._path(data), features.patches.contiguous()
        facts = {"size": json.dumps(features.size), "picture": path.stem, "crc32": _sum(patches)}
        try:
            path.parent.mkdir(exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".saving")
            os.close(handle)
            try:
                save_file({"patches": patches}, temporary, metadata=facts)
                os.replace(temporary, path)
            except (OSError, SafetensorError):
                Path(temporary).unlink(missing_ok=True)
                raise
            self.num_bytes += path.stat().st_size
        except (OSError, SafetensorError):  # a full disk: training goes on, as it does beyond the limit
            self.num_unkept += 1


def _clear(folder: Path) -> None:
    """Remove what killed processes left behind; what others write just now is left to them."""
    for left in folder.glob("*/*.saving"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFT_BEHIND_S:
                left.unlink()


def _sum(patches: torch.Tensor) -> str:
    return f"{zlib.crc32(patches.contiguous().view(torch.uint8).numpy().data):08x}"


def fingerprint(backbone: Backbone, config: RunConfig) -> str:
    """Hash of tower, processor and arithmetic: what features depend on besides the picture."""
    digest = hashlib.sha256()
    tower = backbone.network.model.vision_embed_tokens.img_processor
    for name, parameter in sorted(tower.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    facts = backbone.processor.image_processor.to_dict() | {
        "arithmetic": "bfloat16" if config.computes_in_bfloat16 else "float32",
        "device": backbone.device.type,
    }
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:32]
