"""A built data set in the layouts of other tools.

export.py ──┬── image_folder.py    pictures and metadata.parquet, as `datasets` reads image folders
            ├── web_dataset.py     tar shards, as the `webdataset` library reads them
            ├── csv_table.py       one table and a folder of pictures; cells.py: texts that a spreadsheet would run
            └── facts.py, card.py  export.json and README.md
names.py: file names from product codes; publish.py: a folder that appears whole or not at all.
`data/sources/own.py` reads all three layouts back.
"""
