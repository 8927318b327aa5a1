"""Batch prediction: a picture, a folder or a table in, one row out per row in.

inputs.py     what is asked about: rows of a table or a folder, in order
loading.py    their pictures: read, fetched and decoded ahead of the model
answering.py  pictures to rows of the output, by whatever answers
models.py     the model that does, and what tells it from another
ledger.py     rows that are finished, kept on disk until the output is written
outputs.py    CSV, JSONL, Parquet: written in one go from the ledger, whole or not at all
run.py        the whole road on this machine
on_ray.py     the middle of it on a cluster
"""
