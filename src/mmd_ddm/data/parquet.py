"""Pictures in parquet tables, as the Hugging Face hub keeps data sets, read row by row."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmd_ddm.data.choose import choose_name
from mmd_ddm.data.decode import Damaged, Files, Refused
from mmd_ddm.data.kinds import damage, kind_at
from mmd_ddm.data.notes import Notes, listed

__all__ = ["cell", "choose_tables", "read_rows"]


def choose_tables(folder: Path, part: str) -> list[Path]:
    """The tables below a folder, sorted, of one part (``train``): named or kept so."""
    found = sorted(folder.rglob("*.parquet"))
    return [
        path
        for path in found
        if path.name.startswith(part) or part in path.relative_to(folder).parts
    ]


def read_rows(tables: Sequence[Path], asked: list[str], source: str, notes: Notes) -> Files:
    """Each picture's file as it was put in, with a name for it.

    Args:
        tables: of one set.
        asked: the column that was chosen.
        source: what the person named.
        notes: gets the column that is taken.

    Raises:
        ValueError: no pyarrow, a damaged table, one without a column of pictures, or with several
            of which none is chosen.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            f"pyarrow is needed to read {tables[0]}: pip install 'mmd-ddm[data]'"
        ) from error
    column = ""
    of = notes.taken or (tables[0].name if len(tables) == 1 else f"{len(tables)} tables")
    for path in tables:
        try:
            with parquet.ParquetFile(path) as table:
                column = _column(table.schema_arrow, column, asked, source)
                notes.taken, row = f"column {column} of {of}", 0
                for batch in table.iter_batches(64, columns=[column]):
                    for value in batch.column(column).to_pylist():
                        yield f"{path}:{row}", partial(cell, value)
                        row += 1
        except Refused as error:
            raise ValueError(f"{path} {error}") from error
        except Exception as error:  # a damaged table raises a dozen kinds
            kind = kind_at(path)
            raise ValueError(f"{path} cannot be read: it is {kind} ({damage(error)})") from error


def _column(schema: Any, before: str, asked: list[str], source: str) -> str:
    """That of the tables before, or else chosen: bytes, or what `datasets` makes of an image."""
    from pyarrow import types

    def of_bytes(kind: Any) -> bool:
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        return types.is_binary(kind) or types.is_large_binary(kind)

    found = [field.name for field in schema if of_bytes(field.type)]
    if not found or (before and before not in found):
        what = f"no column {before}".rstrip()
        raise Refused(f"holds {what} of images; its columns are {listed(schema.names, 10)}")
    return before or choose_name(found, asked, source, "column")


def cell(value: Any) -> bytes:
    """The file in a cell of a table.

    Raises:
        Damaged: there is none.
    """
    name = ""
    if isinstance(value, dict):
        name, value = value.get("path") or "", value["bytes"]
    if value is None:
        what = f"the table names {name} and does not hold it" if name else "it is an empty cell"
        raise Damaged(f"cannot be read: {what}")
    return value
