"""Product tables as their owners keep them: every row as a plain dict of its own columns.

tables.py           CSV, TSV, JSONL, Parquet      products.csv | a folder that holds one
class_folders.py    class folders                 FOLDER/coats/17.jpg: the folder's name is the category
conversations.py    conversations                 the JSON that other trainers read
hub.py              the Hub                       hub:owner/name
own.py              what appraiser wrote          data set folders, and their exports in any layout
"""

from __future__ import annotations

from pathlib import Path

from appraiser.data.dataset import is_dataset
from appraiser.data.exports.csv_table import TABLE
from appraiser.data.exports.facts import is_export
from appraiser.data.sources.class_folders import PICTURE_SUFFIXES, open_class_folders
from appraiser.data.sources.hub import open_hub
from appraiser.data.sources.own import open_built, open_export
from appraiser.data.sources.source import Source
from appraiser.data.sources.tables import TABLE_NAMES, open_table

__all__ = ["PICTURE_SUFFIXES", "Source", "open_source"]


def open_source(name: str) -> Source:
    """Open a table, a folder that holds one or class folders, a conversation file, or `hub:owner/name`.

    Raises:
        DataError: nothing there, not a table, or a damaged one; the message names file and line.
    """
    if name.startswith("hub:"):
        return open_hub(name.removeprefix("hub:"))
    path = Path(name)
    if not path.is_dir():
        return open_export(path.parent) if path.name == TABLE and is_export(path.parent) else open_table(path)
    if is_dataset(path):
        return open_built(path)
    if is_export(path):
        return open_export(path)
    table = next((path / table for table in TABLE_NAMES if (path / table).is_file()), None)
    return open_class_folders(path) if table is None else open_table(table)
