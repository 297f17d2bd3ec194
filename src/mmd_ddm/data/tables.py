"""Rows of tables, read by `datasets`: parquet, Arrow (``save_to_disk``), WebDataset tars, the hub.

Pictures are taken undecoded, as bytes, and decoded as all others are; rows are read as they are
needed. What is code in a set is never run: `datasets` has no loading scripts since 4.0, and its
WebDataset reader unpickles nothing. Nothing asks the network but a set of the hub.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmd_ddm.data.choose import choose_name
from mmd_ddm.data.decode import Damaged, Example, Files, Refused
from mmd_ddm.data.kinds import damage, kind_at
from mmd_ddm.data.labels import CAPTIONS, LABELS
from mmd_ddm.data.notes import Notes, listed
from mmd_ddm.models.find import shorten

__all__ = ["Hub", "Wanted", "read_hub", "read_tables"]

_SHUFFLED = 10_000  # undecoded pictures held while a stream is shuffled
_READERS = {".parquet": "parquet", ".tar": "webdataset"}


class Wanted(NamedTuple):
    """What is read of a row beside its picture."""

    labels: bool = False
    captions: bool = False


class Hub(NamedTuple):
    """A split of a set on the Hugging Face hub.

    Attributes:
        hub_id: of the set.
        split: which; empty is the only one, or that which was chosen.
        some: so many of it, chosen at random but always the same; 0 is all.
        folder: what a copy of it would be called.
    """

    hub_id: str
    split: str = ""
    some: int = 0
    folder: str = ""


class _Columns(NamedTuple):
    """The names of those that are read, which may be empty; None for none."""

    image: str
    label: str | None
    caption: str | None

    @property
    def read(self) -> list[str]:
        """All that there are."""
        return list(dict.fromkeys(name for name in self if name is not None))


def read_tables(
    tables: Sequence[Path], asked: list[str], source: str, wanted: Wanted, notes: Notes
) -> Files:
    """Each picture's file as it was put in.

    Args:
        tables: of one set.
        asked: the columns that were chosen.
        source: what the person named.
        wanted: what is read beside it.
        notes: gets the columns that are taken, and the names of the classes.

    Raises:
        ValueError: a damaged table, one without such a column, or with several of which none is
            chosen.
    """
    before = None
    of = notes.taken or (tables[0].name if len(tables) == 1 else f"{len(tables)} tables")
    for path in tables:
        try:
            rows = _open(path)
            before = _columns(rows.features, before, asked, source, wanted, notes)
            notes.taken = f"{_words(before)} of {of}"
            yield from _examples(rows, before, f"{path}:")
        except Refused as error:
            raise ValueError(f"{path} {error}") from error
        except Exception as error:  # a damaged table raises a dozen kinds
            kind = kind_at(path)
            raise ValueError(f"{path} cannot be read: it is {kind} ({damage(error)})") from error


def read_hub(hub: Hub, asked: list[str], wanted: Wanted, notes: Notes) -> Files:
    """The same of a set on the hub, streamed.

    Raises:
        ValueError: it cannot be had, or what has to be chosen.
    """
    from datasets import get_dataset_config_names, get_dataset_split_names, load_dataset
    from huggingface_hub import HfApi

    hub_id, split, some, folder = hub
    config = list[str]()
    try:
        HfApi().dataset_info(hub_id, timeout=20)  # asked first: datasets tries for minutes
        if not split:
            configs = get_dataset_config_names(hub_id)
            config = [_choose(configs, asked, hub_id, "config")] if len(configs) > 1 else []
            split = _choose(get_dataset_split_names(hub_id, *config), asked, hub_id, "split")
        rows = load_dataset(hub_id, *config, split=split, streaming=True)
        columns = _columns(rows.features, None, asked, f"hub:{hub_id}:{split}", wanted, notes)
        notes.taken = f"split {split}, {_words(columns)} of {hub_id}"
        if some:
            rows = rows.shuffle(seed=0, buffer_size=_SHUFFLED).take(some)
        yield from _examples(rows, columns, f"{hub_id}:")
    except Refused as error:
        raise ValueError(f"{hub_id} {error}") from error
    except Exception as error:  # the hub's clients, and their transports, raise a dozen kinds
        folder = folder or hub_id.rpartition("/")[2]
        raise ValueError(
            f"{hub_id} cannot be taken from the hub (offline? elsewhere: hf download --repo-type "
            f"dataset {hub_id} --local-dir {folder}): {shorten(error)}"
        ) from error


def _open(path: Path) -> Any:
    """Its rows, with their ``features``."""
    from datasets import Dataset, load_dataset

    if path.suffix.lower() == ".arrow":
        return Dataset.from_file(str(path))
    reader = _READERS[path.suffix.lower()]
    return load_dataset(reader, data_files=[str(path)], split="train", streaming=True)


def _columns(
    features: Any, before: _Columns | None, asked: list[str], source: str, wanted: Wanted,
    notes: Notes,
) -> _Columns:  # fmt: skip
    """Those of the tables before, or else chosen."""
    from datasets import ClassLabel

    names = listed([*features], 10)
    images = [name for name, kind in features.items() if _is_image(kind)]
    if not images or (before and before.image not in images):
        what = f"no column {before.image}" if before else "no column"
        raise Refused(f"holds {what} of images; its columns are {names}")
    if before is None:
        kinds = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
        usual = kinds if len(kinds) == 1 else LABELS
        before = _Columns(
            label=_beside(features, _is_label, usual, asked, "labels") if wanted.labels else None,
            caption=_beside(features, _is_text, CAPTIONS, asked, "captions")
            if wanted.captions
            else None,
            image=choose_name(images, asked, source, "column"),
        )
        if asked:
            raise Refused(f"holds no {asked[0]!r} that could be chosen")
    for name in before.read:
        if name not in features:
            raise Refused(f"holds no column {name}; its columns are {names}")
    classes = tuple(getattr(features.get(before.label), "names", ()))
    if notes.classes not in ((), classes):
        raise Refused(f"has other classes in column {before.label} than the tables before")
    notes.classes = classes
    return before


def _beside(
    features: Any, fits: Callable[[Any], bool], usual: Sequence[str], asked: list[str], what: str
) -> str:
    """The column of that kind that is chosen, and used up, or else has a usual name."""
    found = [name for name, kind in features.items() if fits(kind)]
    chosen = [word for word in asked if word in found]
    if chosen:
        asked.remove(chosen[0])
    named = chosen or [name for word in usual for name in found if name.lower() == word.lower()]
    if not named:
        columns = listed([*features], 10)
        raise Refused(
            f"holds no {what}: its columns are {columns}; name one behind the source, as "
            "set.parquet:COLUMN"
        )
    return named[0]


def _is_image(kind: Any) -> bool:
    """Bytes, or what `datasets` makes of an image."""
    from datasets import Image

    whole = kind.get("bytes") if isinstance(kind, dict) else kind
    return isinstance(kind, Image) or getattr(whole, "dtype", "") in ("binary", "large_binary")


def _is_text(kind: Any) -> bool:
    return getattr(kind, "dtype", "") in ("string", "large_string")


def _is_label(kind: Any) -> bool:
    return _is_text(kind) or str(getattr(kind, "dtype", "")).startswith(("int", "uint"))


def _examples(rows: Any, columns: _Columns, prefix: str) -> Files:
    from datasets import Image

    image, label, caption = columns
    key = ["__key__"] if "__key__" in rows.features else []
    names = [*dict.fromkeys([*columns.read, *key])]
    rows = rows.select_columns(names)
    if isinstance(rows.features[image], Image):
        rows = rows.cast_column(image, Image(decode=False))
    for i, row in enumerate(rows):
        name = f"{prefix}{row['__key__'] if key else i}"
        yield Example(name, partial(_cell, row[image]), row.get(label), row.get(caption))


def _words(columns: _Columns) -> str:
    names = columns.read
    return f"column{'s' * (len(names) > 1)} {', '.join(names)}"


def _choose(found: Sequence[str], asked: list[str], hub_id: str, kind: str) -> str:
    """The only one, or that which is chosen."""
    if len(found) == 1 and asked[:1] != [*found]:
        return found[0]
    return choose_name(found, asked, f"hub:{hub_id}", kind)


def _cell(value: Any) -> bytes:
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
    return bytes(value)
