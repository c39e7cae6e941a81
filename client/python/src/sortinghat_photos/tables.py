"""Results as Arrow tables, whose `to_pandas()` makes data frames."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from .errors import SortinghatError

if TYPE_CHECKING:
    import pyarrow


def parquet_table(parts: list[bytes], columns: list[str] | None) -> pyarrow.Table:
    """Parquet files, one after the other, as one table."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise _missing() from error
    return pyarrow.concat_tables([parquet.read_table(io.BytesIO(part), columns=columns) for part in parts])


def csv_table(content: bytes) -> pyarrow.Table:
    """A CSV file as a table."""
    try:
        from pyarrow import csv
    except ImportError as error:
        raise _missing() from error
    return csv.read_csv(io.BytesIO(content))


def _missing() -> SortinghatError:
    return SortinghatError("tables need pyarrow, which is not installed: pip install 'sortinghat-photos[tables]'")
