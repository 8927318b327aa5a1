"""Any source -> a data set folder.

build.py ── collect.py ── rows.py, fetch.py, decoding.py        every row to its state
    │           └──────── ledger.py, previous.py                states on disk: of this build, of the one it replaces
    ├────── grouping.py                                         which rows are one product, and their split
    └────── shards.py, card.py                                  Parquet shards, README
"""
