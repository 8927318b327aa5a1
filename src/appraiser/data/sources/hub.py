"""Data sets of the Hub, and folders as the `datasets` library lays them out: read row by row, never as a whole.

owner/name[/config][@split]    the Hub; split `train` where nothing else is said
FOLDER/data/train-*.parquet    a copy of a Hub repository, with or without `configs` in its README
FOLDER/dataset_info.json       what `save_to_disk` wrote; with several splits it is FOLDER/dataset_dict.json
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from appraiser.data.sources.source import Source, licence_of, numbered, sha256_of
from appraiser.errors import DataError

DEFAULT_SPLIT = "train"
Row = dict[str, Any]


def open_hub(name: str) -> Source:
    """Open one split of a data set of the Hub.

    Args:
        name: `owner/name`, with `/config` and `@split` where it has several.

    Raises:
        DataError: it cannot be loaded, or has no such split.
    """
    from datasets import load_dataset
    from huggingface_hub import HfApi

    path, _, wanted = name.partition("@")
    parts = path.split("/", 2)
    repository, config = "/".join(parts[:2]), parts[2] if len(parts) > 2 else None
    try:
        facts = HfApi().dataset_info(repository)
        # Of one commit: the set is read more than once.
        splits = load_dataset(repository, config, revision=facts.sha, streaming=True)
        split = _chosen(wanted, list(splits), name)
        columns = _columns(splits[split])
    except DataError:
        raise
    except Exception as error:  # the Hub client raises some fifteen kinds; all mean the same to the user
        raise DataError(
            f"cannot load {name} from the Hub: {_message(error)}",
            fix="check the name (hub:owner/name/config@split) and the network, or HF_ENDPOINT; a private set needs a "
            "token (hf auth login)",
        ) from error
    counts = splits[split].info.splits or {}
    others = [f"{other} ({counts[other].num_examples} rows)" if other in counts else other for other in splits]
    others.pop(list(splits).index(split))
    licence = getattr(facts.card_data, "license", None) or splits[split].info.license
    return Source(
        name=f"hub:{name}",
        columns=columns,
        rows=numbered(lambda: (_with_addresses(row, repository) for row in _rows(splits[split]))),
        folder=None,
        sha256=hashlib.sha256(f"{repository} {config} {split} {facts.sha}".encode()).hexdigest(),
        licence=", ".join(licence) if isinstance(licence, list) else licence or None,
        notes=(f"read the split {split} of {name}, left out {', '.join(others)}",) if others else (),
    )


def _chosen(wanted: str, splits: list[str], name: str) -> str:
    if wanted in splits or (not wanted and DEFAULT_SPLIT in splits):
        return wanted or DEFAULT_SPLIT
    if not wanted and len(splits) == 1:
        return splits[0]
    raise DataError(
        f"hub:{name} has no split {wanted or DEFAULT_SPLIT!r}",
        fix=f"choose from {', '.join(splits)}, e.g. hub:{name.partition('@')[0]}@{splits[0]}",
    )


def _with_addresses(row: Row, repository: str) -> Row:
    """Pictures that are files of the repository by their address there: they are fetched as those of a shop are."""
    from huggingface_hub import hf_hub_url

    here = f"hf://datasets/{repository}@"

    def address(cell: Any) -> Any:
        if isinstance(cell, list):
            return [address(part) for part in cell]
        place = cell.get("path") if isinstance(cell, Mapping) and not cell.get("bytes") else None
        if not isinstance(place, str) or not place.startswith(here):
            return cell
        revision, _, file = place.removeprefix(here).partition("/")
        return {"path": hf_hub_url(repository, file, repo_type="dataset", revision=revision)}

    return {name: address(cell) for name, cell in row.items()}


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def open_saved(folder: Path) -> Source:
    """Open what `save_to_disk` wrote; all splits, named in `source_split`."""
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(folder))
    except Exception as error:  # pyarrow, JSON and file errors of many kinds
        raise DataError(f"cannot load {folder}: {_message(error)}", fix="save the data set again") from error
    splits = dict(loaded) if isinstance(loaded, DatasetDict) else {None: loaded}
    streams = {name: split.to_iterable_dataset() for name, split in splits.items()}
    return _local(folder, streams, "*.arrow")


def is_repository(folder: Path) -> bool:
    """Whether a folder holds Parquet files, as repositories of the Hub do."""
    return next(folder.rglob("*.parquet"), None) is not None


def open_repository(folder: Path) -> Source:
    """Open a copy of a Hub repository; all splits, named in `source_split`."""
    from datasets import load_dataset

    try:
        splits = load_dataset(str(folder.resolve()), streaming=True)
        return _local(folder, dict(splits), "*.parquet")
    except Exception as error:  # see above
        raise DataError(
            f"cannot load {folder}: {_message(error)}",
            fix="name one Parquet file, or the folder of one configuration",
        ) from error


def _local(folder: Path, splits: Mapping[str | None, Any], files: str) -> Source:
    def rows() -> Iterator[Row]:
        for name, split in splits.items():
            for row in _rows(split):
                yield row if name is None else row | {"source_split": name}

    columns = dict.fromkeys(column for split in splits.values() for column in _columns(split))
    return Source(
        name=str(folder),
        columns=tuple(columns),
        rows=numbered(rows),
        folder=folder,
        sha256=sha256_of(sorted(folder.rglob(files))),
        licence=licence_of(folder),
    )


def _columns(split: Any) -> tuple[str, ...]:
    """Columns of a stream; those of its first row where the files do not state them."""
    return tuple(split.features or next(iter(split), {}))


def _rows(split: Any) -> Iterator[Row]:
    """Rows of a stream: pictures as bytes or path, classes by name."""
    from datasets import ClassLabel

    features = split.features or {}
    classes = {name: feature for name, feature in features.items() if isinstance(feature, ClassLabel)}
    count = 0
    try:
        for row in split.decode(False) if features else split:
            yield row | {name: _class_name(feature, row[name]) for name, feature in classes.items()}
            count += 1
    except Exception as error:  # the network, a damaged file, cells that do not fit: as many kinds as above
        raise DataError(
            f"cannot read on after row {count}: {_message(error)}",
            where=f"split {split.split}" if split.split else None,
            fix="start again: a build goes on where it stopped; if it stays so, a file there is damaged",
        ) from error


def _class_name(feature: Any, value: int | None) -> str | None:
    # -1 stands for "no class" in test splits without labels.
    return None if value is None or value < 0 else str(feature.int2str(value))


def _message(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:300]
