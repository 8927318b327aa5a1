"""Product tables as their owners keep them: every row as a plain dict of its own columns.

tables.py           CSV, TSV, JSONL, Parquet      products.csv | a folder that holds one
class_folders.py    class folders                 FOLDER/coats/17.jpg: the folder's name is the category
conversations.py    conversations                 the JSON that other trainers read
hub.py              the Hub                       hub:owner/name
"""

from __future__ import annotations

from pathlib import Path

from appraiser.data.sources.class_folders import PICTURE_SUFFIXES, open_class_folders
from appraiser.data.sources.hub import open_hub
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
        return open_table(path)
    table = next((path / table for table in TABLE_NAMES if (path / table).is_file()), None)
    return open_class_folders(path) if table is None else open_table(table)
