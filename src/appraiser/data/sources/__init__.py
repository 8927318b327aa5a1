"""Product tables as their owners keep them: every row as a plain dict of its own columns.

tables.py           CSV, TSV, JSONL, Parquet      products.csv | a folder that holds one
split_tables.py     a table per split             train/metadata.csv, test/metadata.csv
class_folders.py    class folders                 FOLDER/coats/17.jpg: the folder's name is the category
conversations.py    conversations                 the JSON that other trainers read
hub.py              the Hub, and copies of it     hub:owner/name | data/train-00000-of-00001.parquet | save_to_disk
own.py              what appraiser wrote          data set folders, and their exports in any layout
"""

from __future__ import annotations

import logging
from pathlib import Path

from appraiser.data.dataset import is_dataset
from appraiser.data.exports.csv_table import TABLE
from appraiser.data.exports.facts import is_export
from appraiser.data.sources.class_folders import PICTURE_SUFFIXES, open_class_folders
from appraiser.data.sources.hub import is_repository, is_saved, open_hub, open_repository, open_saved
from appraiser.data.sources.own import open_built, open_export
from appraiser.data.sources.source import Source
from appraiser.data.sources.split_tables import has_split_tables, open_split_tables
from appraiser.data.sources.tables import TABLE_NAMES, open_table

__all__ = ["PICTURE_SUFFIXES", "Source", "open_source"]

_log = logging.getLogger(__name__)


def open_source(name: str) -> Source:
    """Open a table, a folder of one of the kinds above, a conversation file, or `hub:owner/name`.

    What lies there and is not read is said in a warning.

    Raises:
        DataError: nothing there, not a table, or a damaged one; the message names file and line.
    """
    path = Path(name)
    if name.startswith("hub:"):
        source = open_hub(name.removeprefix("hub:"))
    elif path.is_dir():
        source = _open_folder(path)
    elif path.name == TABLE and is_export(path.parent):
        source = open_export(path.parent)
    else:
        source = open_table(path)
    for note in source.notes:
        _log.warning("%s", note)
    return source


def _open_folder(folder: Path) -> Source:
    if is_dataset(folder):
        return open_built(folder)
    if is_export(folder):
        return open_export(folder)
    for table in TABLE_NAMES:
        if (folder / table).is_file():
            return open_table(folder / table)
    if has_split_tables(folder):
        return open_split_tables(folder)
    if is_saved(folder):
        return open_saved(folder)
    if is_repository(folder):
        return open_repository(folder)
    return open_class_folders(folder)
