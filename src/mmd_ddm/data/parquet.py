"""Pictures in parquet tables, as the Hugging Face hub keeps data sets, read row by row."""

from collections.abc import Iterator
from pathlib import Path

__all__ = ["choose_tables", "read_rows"]


def choose_tables(folder: Path, part: str = "") -> list[Path]:
    """The tables below a folder, sorted; of one part (``train``), those named or kept so."""
    found = sorted(folder.rglob("*.parquet"))
    return [
        path
        for path in found
        if path.name.startswith(part) or part in path.relative_to(folder).parts
    ]


def read_rows(path: Path) -> Iterator[tuple[str, bytes]]:
    """Each picture's file as it was put in, with a name for it.

    Raises:
        ValueError: no pyarrow, a damaged table, or one without a column of pictures.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            f"pyarrow is needed to read {path}: pip install 'mmd-ddm[data]'"
        ) from error
    try:
        table = parquet.ParquetFile(path)
        column = _picture_column(table.schema_arrow)
        row = 0
        for batch in table.iter_batches(64, columns=[column]):
            for value in batch.column(0).to_pylist():
                content = value["bytes"] if isinstance(value, dict) else value
                if content is None:
                    raise ValueError(f"row {row} of {column} names a file and holds none")
                yield f"{path}:{row}", content
                row += 1
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise ValueError(f"cannot read pictures from {path}: {error}") from error


def _picture_column(schema: object) -> str:
    """The first column of files: bytes, or what `datasets` makes of an image."""
    from pyarrow import types

    for field in schema:  # type: ignore[attr-defined]
        if types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            return field.name
        if types.is_binary(field.type) or types.is_large_binary(field.type):
            return field.name
    raise ValueError("no column of pictures")
