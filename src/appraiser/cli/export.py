"""The command `export`: a data set in other layouts, or a model as a folder of its own; the source tells which."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from appraiser.cli.app import emit
from appraiser.cli.options import Json
from appraiser.console import progress_bar, stages, stderr
from appraiser.errors import ConfigError, DataError

if TYPE_CHECKING:
    from appraiser.exporting.export import ModelExport

MODEL_FILES = ("config.yaml", "config.json", "adapter_config.json", "appraiser.json")
"""A run, a model, an adapter, a checkpoint."""
EMBEDDED = ("phi3v-tiny",)
"""As `backbone.EMBEDDED_MODELS`, which takes seconds to import."""
Layout = Literal["imagefolder", "webdataset", "csv"]
Dtype = Literal["float32", "bfloat16"]


def export(
    source: Annotated[
        str,
        typer.Argument(
            help="Run (its best checkpoint), checkpoint, model folder or embedded model; or a data set folder, as "
            "`appraiser build` makes it."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Model: the adapter alone, in PEFT's format; default: merged weights.")
    ] = False,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Model: of the merged weights; unset: the run's model.dtype.")
    ] = None,
    sample_pictures: Annotated[
        bool,
        typer.Option(
            "--sample-pictures",
            help="Model: carry rendered reference pictures, none of the data set's, where these must not be shown.",
        ),
    ] = False,
    layout: Annotated[
        Layout | None,
        typer.Option(
            "--as",
            help="Data set: imagefolder and webdataset, as `datasets` and the `webdataset` library read them; csv: one "
            "table and a folder of pictures.",
        ),
    ] = None,
    shard_mib: Annotated[
        int | None, typer.Option(min=1, help="webdataset: size of a tar shard in MiB; 512 if unset.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a model for other engines and machines, or a data set in the layout of another tool.

    A model comes with processor, generation settings, model card and 20 reference pictures with their answers. A fresh
    process loads it and compares it with its source before it is there. `appraiser build` reads exported data sets.

    Example:  appraiser export runs/first exported/first

    Example:  appraiser export dataset dataset-as-csv --as csv
    """
    if _is_model(source):
        if layout or shard_mib:
            raise ConfigError(
                f"--as and --shard-mib are for data sets; {source} is a model", fix="leave them out, or name a data set"
            )
        _export_model(source, out, adapter, dtype, sample_pictures, as_json)
        return
    if adapter or dtype or sample_pictures:
        raise ConfigError(
            f"--adapter, --dtype and --sample-pictures are for models; {source} is none",
            fix="leave them out, or name a run, a checkpoint or a model folder",
        )
    if not (Path(source) / "manifest.json").is_file():
        raise DataError(
            f"nothing to export at {source}",
            fix="name a run, a checkpoint, a model folder, or a data set folder, as `appraiser build` makes it",
        )
    _export_dataset(Path(source), out, layout, shard_mib, as_json)


def _is_model(source: str) -> bool:
    return source in EMBEDDED or any((Path(source) / name).is_file() for name in MODEL_FILES)


def _export_model(
    source: str, out: Path, adapter: bool, dtype: Dtype | None, sample_pictures: bool, as_json: bool
) -> None:
    from appraiser.exporting.export import export_model

    with stages() as report:
        done = export_model(
            source, out, adapter=adapter, dtype=dtype, own_pictures=not sample_pictures, progress=report
        )
    checks = done.checks
    changed = checks.num_products - checks.num_same_answers
    if changed:
        stderr.print(
            f"warning: rounded to {done.dtype}, the weights answer {changed} of {checks.num_products} pictures "
            "differently; --dtype float32 rounds nothing",
            highlight=False,
        )
    emit({"out": str(out)} | done.as_dict(), as_json, _said(done))


def _said(done: ModelExport) -> str:
    """What was exported and what was shown of it."""
    checks, count = done.checks, done.checks.num_products
    size = f"{done.num_bytes / 1e9:.1f} GB" if done.num_bytes > 1e9 else f"{done.num_bytes / 1e6:.1f} MB"
    what = "the adapter alone" if done.kind == "adapter" else f"whole weights in {done.dtype}"
    lines = [
        f"{done.source.name} ({done.method}): {what}, {size}.",
        f"A fresh process loaded it and answered {count} reference pictures as the model in memory did, bit for bit.",
    ]
    if checks.merge_difference is not None:
        lines.append(
            f"Merged against attached adapter: the same answers, logits at most {checks.merge_difference:.1e} of the "
            f"largest apart (allowed: {checks.merge_tolerance:.0e})."
        )
    if checks.rounding_difference is not None:
        lines.append(f"Rounded to {done.dtype}: {checks.num_same_answers} of {count} answers stay the same.")
    own = sum(number for origin, number in done.origins.items() if origin != "sample")
    if own:
        lines.append(f"It carries {own} products' pictures of the data set; --sample-pictures carries rendered ones.")
    if done.kind == "adapter":
        lines.append(
            "vLLM, by reports against it, rejects adapters on the fused qkv_proj and gate_up_proj and ignores those on "
            "the tower: export merged weights for it."
        )
    lines.append(f"Saved {done.out}. Try: appraiser predict {done.out} photo.jpg")
    return "\n".join(lines)


def _export_dataset(folder: Path, out: Path, layout: Layout | None, shard_mib: int | None, as_json: bool) -> None:
    from appraiser.data.exports.export import export_dataset
    from appraiser.data.exports.web_dataset import SHARD_MIB

    if layout is None:
        raise ConfigError("which layout?", where=str(folder), fix="add --as imagefolder, --as webdataset or --as csv")
    if shard_mib and layout != "webdataset":
        stderr.print(f"warning: --shard-mib is for webdataset: not used for {layout}")
    with progress_bar("exporting", 0) as report:
        facts = export_dataset(folder, out, layout, shard_mib=shard_mib or SHARD_MIB, progress=report)
    splits = ", ".join(f"{count} {split}" for split, count in facts.splits.items())
    marked = f"{facts.num_escaped_cells} texts that a spreadsheet would run are marked with a '.\n"
    pairs = facts.num_twins_left_out
    twins = f"{pairs} twin pairs were not exported: no other tool has a place for them.\n" if pairs else ""
    renamed = "".join(f"Column {name} is called {other} there.\n" for name, other in facts.renamed.items())
    emit(
        {"out": str(out)} | facts.model_dump(mode="json"),
        as_json,
        f"{sum(facts.splits.values())} records with {facts.num_pictures} pictures are in {out}, counted after writing: "
        f"{splits}.\n{marked if layout == 'csv' else ''}{renamed}{twins}Try: appraiser build {out} again",
    )
