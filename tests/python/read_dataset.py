#!/usr/bin/env python3
"""Read a dataset's Parquet shards as the Python world does, and say what is in them.

    read_dataset.py SHARD.parquet...

Opens the files with pyarrow, DuckDB and Hugging Face datasets, checks that the three see the same rows, that every
image decodes and that every label is an index of a class, and prints one JSON object: rows, columns, and the number of
rows by label. What does not hold ends it with 1 and one line.
"""

import collections
import io
import json
import os
import sys
import tempfile

# Nothing here is to be looked for on a hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import datasets
import duckdb
import pyarrow.parquet
from PIL import Image

datasets.disable_progress_bars()


def expect(condition, what):
    if not condition:
        sys.exit(f"read_dataset.py: expected that {what}")


def with_pyarrow(shards):
    """The labels in row order; every image decodes."""
    table = pyarrow.parquet.ParquetDataset(shards).read()
    expect({"image", "label"} <= set(table.column_names), f"there are image and label columns in {table.column_names}")
    for image in table.column("image").to_pylist():
        expect(set(image) == {"bytes", "path"}, f"an image has bytes and path, not {sorted(image)}")
        with Image.open(io.BytesIO(image["bytes"])) as opened:
            opened.load()
    return table.column_names, table.column("label").to_pylist()


def with_duckdb(shards):
    """Rows by label."""
    rows = duckdb.execute(
        "select label, count(*), sum(octet_length(image.bytes)) from read_parquet(?) group by label", [shards]
    ).fetchall()
    expect(all(size > 0 for _, _, size in rows), "DuckDB sees the images' bytes")
    return {label: count for label, count, _ in rows}


def with_datasets(shards):
    """Rows by label; the image column decodes to pictures by itself or when cast."""
    with tempfile.TemporaryDirectory() as cache:
        dataset = datasets.load_dataset("parquet", data_files=shards, split="train", cache_dir=cache)
        if not isinstance(dataset.features["image"], datasets.Image):
            dataset = dataset.cast_column("image", datasets.Image())
        expect(dataset[0]["image"].size[0] > 0, "Hugging Face datasets decodes an image")
        if isinstance(dataset.features["label"], datasets.ClassLabel):
            names = dataset.features["label"].num_classes
            expect(all(0 <= label < names for label in dataset["label"]), "every label is an index of a class")
        return dict(collections.Counter(dataset["label"]))


def main(shards):
    if not shards:
        sys.exit(__doc__.strip())
    columns, labels = with_pyarrow(shards)
    by_label = dict(collections.Counter(labels))
    expect(with_duckdb(shards) == by_label, "DuckDB and pyarrow count the same labels")
    expect(with_datasets(shards) == by_label, "Hugging Face datasets and pyarrow count the same labels")
    print(json.dumps({"rows": len(labels), "columns": columns, "by_label": dict(sorted(by_label.items()))}))


if __name__ == "__main__":
    main(sys.argv[1:])
