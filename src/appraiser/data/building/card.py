"""README.md of a data set folder: what it holds, and the names of its splits for `load_dataset`."""

from __future__ import annotations

from appraiser.data.dataset import SPLIT_NAMES, Manifest

CARD_SPLITS = {"train": "train", "val": "validation", "calib": "calibration", "test": "test"}


def card(manifest: Manifest) -> str:
    """Data set card; its `configs` name the splits for `load_dataset`."""
    files = "".join(
        f"  - split: {CARD_SPLITS[name]}\n    path: {name}-*.parquet\n" for name in SPLIT_NAMES if manifest.splits[name]
    )
    counts = "\n".join(f"| {name} | {manifest.splits[name]} |" for name in SPLIT_NAMES)
    reasons = ", ".join(f"{count} {reason}" for reason, count in manifest.quarantined_by_reason.items()) or "none"
    return (
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n\n"
        f"# Product data set\n\nBuilt by appraiser {manifest.appraiser} from `{manifest.source}` "
        f"(licence: {manifest.licence or 'not stated by the source'}).\n\n"
        f"{manifest.rows_in} rows read, {manifest.ok} kept, {manifest.quarantined} left out ({reasons}; see "
        f"quarantine.parquet).\n\n| split | records |\n| --- | --- |\n{counts}\n\n"
        f"Split by product group: {manifest.grouping['num_groups']:.0f} groups, the largest of "
        f"{manifest.grouping['largest_group']:.0f} records. A split by row would have put "
        f"{manifest.grouping['row_split_leak']:.0%} of the test products into training.\n"
    )
