"""A model -> a folder of its own, compared with its source in a fresh process before it is called done."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from safetensors import SafetensorError

from appraiser import __version__
from appraiser.adapters import TRAINED_PARTS, load_adapted
from appraiser.backbone import DTYPES, EMBEDDED_MODELS, Backbone, Reader, load, model_folder
from appraiser.data.exports.publish import published
from appraiser.durable import sync
from appraiser.errors import CheckpointError, ConfigError
from appraiser.exporting.answers import ATTENTION, MERGE_TOLERANCE, Answer, Question, ask, check_equal, check_merged
from appraiser.exporting.answers import difference as answer_difference
from appraiser.exporting.card import card
from appraiser.exporting.fresh import ask_afresh
from appraiser.exporting.pictures import ReferenceProduct, reference_products, suffix
from appraiser.exporting.reference import (
    REFERENCE_FILE,
    REFERENCE_FOLDER,
    Checks,
    Reference,
    ReferenceAnswer,
    first_tokens,
    logprobs_of,
)
from appraiser.exporting.source import ADAPTER_CONFIG, ExportDtype, ModelSource, base_folder, find_source
from appraiser.predict import max_answer_tokens
from appraiser.trained_task import read_task, write_task
from appraiser.training.checkpoint import write_manifest

SHARD_SIZE = "5GB"
"""Of a weights file: the published model comes as two."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"
CARD = "README.md"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ModelExport:
    """What was exported.

    Args:
        method: how the model was trained, in words.
        origins: how many reference products come from which split, or are rendered (`sample`).
    """

    out: Path
    source: Path
    kind: Literal["merged", "adapter"]
    method: str
    dtype: ExportDtype
    num_bytes: int
    origins: dict[str, int]
    checks: Checks

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        paths = {"out": str(self.out), "source": str(self.source)}
        return asdict(self) | paths | {"checks": self.checks.model_dump(mode="json")}


def export_model(
    source: str | Path,
    out: str | Path,
    *,
    adapter: bool = False,
    dtype: ExportDtype | None = None,
    own_pictures: bool = True,
    progress: Progress | None = None,
) -> ModelExport:
    """Export a run (its best checkpoint), a checkpoint, a model folder or an embedded model.

    Args:
        out: folder to make; must not exist or be empty. It appears when a fresh process has loaded and compared it.
        adapter: the adapter alone, in PEFT's format, instead of weights with the adapter merged.
        dtype: of the weights; None: the run's `model.dtype`, or what a folder without a run has.
        own_pictures: False: the reference pictures are rendered, none is the data set's.
        progress: called with (what, done, total).

    Raises:
        CheckpointError: no model there, a damaged one, or an export that is not the same model when it is reloaded.
        ConfigError: an adapter is asked for where there is none, or that others could not load.
        DataError: `out` is in the way or cannot be written.
    """
    found = find_source(source)
    if adapter:
        _check_adapter(found, dtype)
    products = reference_products(found.data if own_pictures else None)
    with published(out) as folder:
        questions = _write_pictures(products, folder, found)
        asking = _Asking(products, found, progress)
        kept: ExportDtype = "float32" if adapter else dtype or found.dtype
        written = _write_adapter(found, folder, asking) if adapter else _write_merged(found, folder, kept, asking)
        gc.collect()  # the fresh process needs the memory of the model that was written
        answers = ask_afresh(folder, questions, written.device, partial(asking.report, "fresh process"))
        check_equal(written.answers, answers)
        reference = _reference(written, products, questions, answers, kept)
        (folder / REFERENCE_FILE).write_text(reference.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (folder / CARD).write_text(
            card(found, reference, num_crops=written.reader.num_crops, is_adapter=adapter), encoding="utf-8"
        )
        _copy_licences(found, folder)
        num_bytes = _seal(folder)
    return ModelExport(
        out=Path(out),
        source=found.folder,
        kind="adapter" if adapter else "merged",
        method=found.method,
        dtype=kept,
        num_bytes=num_bytes,
        origins=dict(Counter(product.origin for product in products)),
        checks=written.checks,
    )


@dataclass(frozen=True)
class _Written:
    """What a folder has to answer once it is reloaded, and what the model in memory showed."""

    answers: list[Answer]
    checks: Checks
    device: torch.device
    reader: Reader


class _Asking:
    """The reference questions, put to models in this process."""

    def __init__(self, products: Sequence[ReferenceProduct], found: ModelSource, progress: Progress | None) -> None:
        task = found.trained.task
        self.questions = [Question(task.prompt(len(p.pictures)), tuple(p.images)) for p in products]
        self.progress = progress

    def __call__(self, what: str, backbone: Backbone) -> list[Answer]:
        return ask(backbone.model, backbone, self.questions, partial(self.report, what))

    def report(self, what: str, done: int) -> None:
        if self.progress:
            self.progress(what, done, len(self.questions))


def _write_pictures(
    products: Sequence[ReferenceProduct], folder: Path, found: ModelSource
) -> list[tuple[str, list[str]]]:
    """Put the reference pictures into the folder; prompts with the pictures' paths there."""
    (folder / REFERENCE_FOLDER).mkdir()
    questions = []
    for number, product in enumerate(products, start=1):
        paths = []
        for place, data in enumerate(product.pictures, start=1):
            several = f"-{place}" if len(product.pictures) > 1 else ""
            paths.append(f"{REFERENCE_FOLDER}/{number:02d}{several}{suffix(data)}")
            (folder / paths[-1]).write_bytes(data)
        questions.append((found.trained.task.prompt(len(paths)), paths))
    return questions


def _write_merged(found: ModelSource, folder: Path, dtype: ExportDtype, asking: _Asking) -> _Written:
    """Write full weights, an adapter merged into them."""
    backbone = _loaded(found)
    said = expected = asking("the model's answers", backbone)
    merge_difference = rounding_difference = None
    if found.is_adapter:
        backbone = Backbone(backbone.processor, backbone.name, backbone.model.merge_and_unload())
        expected = asking("answers, merged", backbone)
        merge_difference = check_merged(said, expected)
    if _is_rounded(backbone, dtype):
        before = expected
        backbone.model.to(DTYPES[dtype])
        _write(backbone, folder)
        backbone.model.float()
        expected = asking(f"answers, {dtype}", backbone)
        rounding_difference = max(answer_difference(*pair) for pair in zip(before, expected, strict=True))
    else:
        backbone.model.to(DTYPES[dtype])
        _write(backbone, folder)
    write_task(folder, found.trained.model_copy(update={"base": None}))
    checks = Checks(
        num_products=len(said),
        num_same_answers=_num_same(said, expected),
        merge_difference=merge_difference,
        merge_tolerance=None if merge_difference is None else MERGE_TOLERANCE,
        rounding_difference=rounding_difference,
    )
    return _Written(expected, checks, backbone.device, Reader(backbone.processor, backbone.name))


def _write_adapter(found: ModelSource, folder: Path, asking: _Asking) -> _Written:
    """Copy the adapter, with a base that can be found from anywhere on this machine."""
    backbone = _loaded(found)
    said = asking("the model's answers", backbone)
    base = base_folder(str(found.trained.base))
    for name in (ADAPTER_WEIGHTS, TRAINED_PARTS):
        if (found.folder / name).is_file():
            shutil.copyfile(found.folder / name, folder / name)
    settings = json.loads((found.folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    settings |= {"base_model_name_or_path": base}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    backbone.processor.save_pretrained(folder)
    backbone.network.generation_config.save_pretrained(folder)
    write_task(folder, found.trained.model_copy(update={"base": base}))
    checks = Checks(num_products=len(said), num_same_answers=len(said))
    return _Written(said, checks, backbone.device, Reader(backbone.processor, backbone.name))


def _loaded(found: ModelSource) -> Backbone:
    """The source in float32, with its adapter attached, and with the generation settings that the export gets."""
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    base = found.trained.base
    if base is None:
        backbone = load(found.folder, attention=ATTENTION, device=device)
    else:
        _check_base(found, base)
        backbone = load_adapted(found.folder, base_folder(base), attention=ATTENTION, device=device)
    settings = backbone.network.generation_config
    settings._from_model_config = False
    settings.update(
        max_new_tokens=max_answer_tokens(backbone, found.trained.language),
        do_sample=False,
        eos_token_id=backbone.stop_token_ids,
    )
    return backbone


def _check_base(found: ModelSource, base: str) -> None:
    folder = base_folder(base)
    if folder in EMBEDDED_MODELS or Path(folder).is_dir():
        return
    try:
        model_folder(folder)
    except CheckpointError:
        raise CheckpointError(
            f"the model under the adapter is gone: {base}",
            where=str(found.folder),
            fix="put it back, or put a link there to where it lies now",
        ) from None


def _check_adapter(found: ModelSource, dtype: ExportDtype | None) -> None:
    """Refuse what could not be an adapter for others."""
    base = found.trained.base
    if base is None:
        raise ConfigError(f"{found.name} has no adapter: it holds whole weights", fix="leave out --adapter")
    if dtype is not None:
        raise ConfigError("an adapter keeps the float32 it was trained in", fix="leave out --dtype or --adapter")
    folder = base_folder(base)
    if Path(folder).is_dir() and read_task(folder).base is not None:
        raise ConfigError(
            f"the base of {found.name} is itself an adapter, which no other tool could load under it",
            where=folder,
            fix="export merged weights (leave out --adapter), or train on an exported base",
        )


def _is_rounded(backbone: Backbone, dtype: ExportDtype) -> bool:
    """Whether any weight changes in this dtype; none does that came from it."""
    kind = DTYPES[dtype]
    return dtype != "float32" and any(
        not torch.equal(weight.to(kind).float(), weight) for weight in backbone.network.parameters()
    )


def _write(backbone: Backbone, folder: Path) -> None:
    """Weights, configuration, generation settings, tokenizer and preprocessor file in the published layout."""
    try:
        backbone.network.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    except SafetensorError as error:  # a full disk comes as one
        raise OSError(str(error)) from error
    backbone.processor.save_pretrained(folder)


def _num_same(one: Sequence[Answer], other: Sequence[Answer]) -> int:
    return sum(first.ids == second.ids for first, second in zip(one, other, strict=True))


def _reference(
    written: _Written,
    products: Sequence[ReferenceProduct],
    questions: Sequence[tuple[str, Sequence[str]]],
    answers: Sequence[Answer],
    dtype: ExportDtype,
) -> Reference:
    return Reference(
        appraiser=__version__,
        torch=torch.__version__,
        transformers=transformers.__version__,
        device=written.device.type,
        attention=ATTENTION,
        weights=dtype,
        num_crops=written.reader.num_crops,
        checks=written.checks,
        products=[
            ReferenceAnswer(
                id=product.id,
                origin=product.origin,
                pictures=list(paths),
                prompt=prompt,
                num_prompt_tokens=answer.num_prompt_tokens,
                num_image_tokens=answer.num_image_tokens,
                input_ids_sha256=answer.input_ids_sha256,
                pixel_values_sha256=answer.pixel_values_sha256,
                answer=answer.text,
                answer_ids=list(answer.ids),
                answer_logprobs=chosen,
                runner_up_logprobs=runner_up,
                first_tokens=first_tokens(answer, written.reader),
            )
            for product, (prompt, paths), answer in zip(products, questions, answers, strict=True)
            for chosen, runner_up in [logprobs_of(answer)]
        ],
    )


def _copy_licences(found: ModelSource, folder: Path) -> None:
    """Licence files of the model that this one was made from."""
    for licence in found.origin.folder.glob("LICEN[CS]E*") if found.origin.folder else ():
        shutil.copyfile(licence, folder / licence.name)


def _seal(folder: Path) -> int:
    """Write manifest.json and force everything to disk; the size of all files in bytes.

    The card is left out of the manifest: people edit it. Weights get the card's permissions: safetensors gives them to
    the owner alone.
    """
    mode = (folder / CARD).stat().st_mode
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CARD):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        path.chmod(mode)
        files[path.relative_to(folder).as_posix()] = (path.stat().st_size, digest)
    write_manifest(folder, files)
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)
    return sum(size for size, _ in files.values())
