"""Generated sources of images: each is read, or refused in one line that names it.

1,550 of them: pictures, arrays and tables with bytes changed or cut off, arrays and tables of any
kind and content, folders and archives of any files, the wrong content under any name.
No error of another class, nothing written, and nothing by halves in the cache.
"""

import gzip
import io
import shutil
import zipfile

import numpy as np
import pyarrow
import pytest
import torch
from commands import contents, digits
from fuzzing import PLACES, attempt, many, spoilt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from picture_files import encode, picture, save_files, save_zip, shades
from PIL import Image
from pyarrow import parquet

from mmd_ddm.data.images import load_images
from mmd_ddm.data.notes import counted

pytestmark = pytest.mark.slow

CUTS = st.one_of(st.just(0), st.integers(0, 2**20))
SHAPES = st.sampled_from([None, None, (1, 8, 8), (3, 8, 8), (3, 5, 4), (4, 8, 8)])
READ = st.fixed_dictionaries(
    {
        "resize": st.booleans(),
        "background": st.sampled_from(["", "white", "#102030"]),
        "skip_damaged": st.booleans(),
    }
)
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
TAKES = {
    "PNG": MODES, "TIFF": (*MODES, "CMYK", "F", "I"), "GIF": ("1", "L", "P", "RGB", "RGBA"),
    "WEBP": ("RGB", "RGBA"), "BMP": ("1", "L", "P", "RGB"), "JPEG": ("L", "RGB", "CMYK"),
}  # fmt: skip
PICTURES = st.sampled_from([(kind, mode) for kind, modes in TAKES.items() for mode in modes])
NAMES = ("image", "img", "mask", "x_train", "x.y", "", "Ä")


def encoded(kind, mode):
    image, buffer = Image.fromarray(digits(1)[0]), io.BytesIO()
    image = image.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(digits(2)[1]))
    image.save(buffer, kind)
    return buffer.getvalue()


def table(columns):
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


def packed(kind):
    """A good file of many images."""
    buffer = io.BytesIO()
    if kind == "npy":
        np.save(buffer, digits(3))
    elif kind == "npz":
        np.savez_compressed(buffer, mask=digits(2), image=digits(3))
    elif kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png", encoded("PNG", "L"))
    elif kind == "parquet":
        return table({"id": [1, 2], "image": [{"bytes": picture(i), "path": "a"} for i in (1, 2)]})
    else:
        idx = bytes([0, 0, 8, 3]) + np.array([3, 8, 8], ">u4").tobytes() + digits(3).tobytes()
        buffer.write(gzip.compress(idx, mtime=0) if kind == "gz" else idx)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def load(place, files, name="", shape=None, **read):
    """Read it twice, as images or not at all, and find nothing else there than before."""
    source = place / "source"
    shutil.rmtree(source, ignore_errors=True)
    save_files(source, files)
    before = contents(source)
    named = f"{source}/{name}".rstrip("/")
    images = attempt(lambda: load_images(named, shape, **read), str(source))
    if images is not None:
        assert images.pixels.dtype == torch.uint8
        assert images.pixels.numel() > 0
        assert shape in (None, tuple(images.pixels.shape[1:]))
        assert images.told[0].startswith(f"read {counted(len(images), 'image')} of {named}: ")
        assert not any("\n" in line for line in images.told)
        assert load_images(named, shape, **read).sha256 == images.sha256
    assert contents(source) == before
    return images


@many(350)
@given(PICTURES, PLACES, CUTS, SHAPES, READ)
def test_spoilt_pictures(place, picture_of, changes, cut, shape, read):
    content = spoilt(encoded(*picture_of), changes, cut)
    load(place, {f"a.{picture_of[0].lower()}": content}, shape=shape, **read)


SIDES = st.integers(1, 300)


@many(150)
@given(SIDES, SIDES, st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
def test_pictures_of_any_size_are_read_where_they_may_be_scaled(place, w, h, height, width, c):
    shape = (c, height, width)
    images = load(place, {"a.png": picture(9, (w, h))}, shape=shape, resize=True)
    assert images.pixels.unique() == 9
    small = w < width or h < height
    assert [line.startswith("enlarged 1 of the 1") for line in images.told[1:]] == [True] * small


@many(300)
@given(st.sampled_from(["npy", "npz", "zip", "gz", "idx", "parquet"]), PLACES, CUTS, SHAPES, READ)
def test_spoilt_arrays_archives_and_tables(place, kind, changes, cut, shape, read):
    content = spoilt(packed(kind), changes, cut)
    load(place, {f"a.{kind}": content}, f"a.{kind}", shape, **read)


KINDS = st.one_of(
    st.just(np.dtype(np.uint8)), arrays_of.scalar_dtypes(), arrays_of.unicode_string_dtypes()
)
SIZES = st.sampled_from(
    [(2, 8, 8), (2, 8, 8, 3), (1, 5, 4, 1), (1, 3, 9, 9), (2, 0, 5), (2, 3, 0, 1), (0, 4, 4)]
)
ANY_SIZES = arrays_of.array_shapes(max_dims=5, min_side=0, max_side=8)
ARRAYS = KINDS.flatmap(lambda kind: arrays_of.arrays(kind, st.one_of(ANY_SIZES, SIZES)))


@many(150)
@given(
    st.dictionaries(st.sampled_from([*NAMES, "arr_0"]), ARRAYS, min_size=1, max_size=3),
    st.sampled_from(["npz", "npy", ":image", ":mask", ":nothing"]), SHAPES, READ,
)  # fmt: skip
def test_arrays_of_any_kind(place, named, form, shape, read):
    buffer = io.BytesIO()
    if form == "npy":
        np.save(buffer, next(iter(named.values())))
        load(place, {"a.npy": buffer.getvalue()}, "a.npy", shape, **read)
    else:
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, array in named.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, array)
        choice = form if form != "npz" else ""
        load(place, {"a.npz": buffer.getvalue()}, f"a.npz{choice}", shape, **read)


FILES = st.sampled_from([picture(i) for i in range(6)] + [picture(2, (5, 4)), b"", b"text", None])
CELLS = {
    "bytes": (pyarrow.binary(), FILES),
    "image": (
        pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}),
        st.fixed_dictionaries({"bytes": FILES, "path": st.just("a.png")}) | st.none(),
    ),
    "odd": (
        pyarrow.struct({"bytes": pyarrow.string()}),
        st.one_of(st.none(), st.fixed_dictionaries({"bytes": st.just("a")})),
    ),
    "number": (pyarrow.int64(), st.one_of(st.none(), st.integers(0, 9))),
    "word": (pyarrow.string(), st.one_of(st.none(), st.text(max_size=3))),
    "list": (pyarrow.list_(pyarrow.binary()), st.lists(FILES, max_size=2)),
    "null": (pyarrow.null(), st.none()),
}
COLUMNS = st.integers(1, 3).flatmap(
    lambda rows: st.dictionaries(
        st.sampled_from(NAMES),
        st.sampled_from(["image"] * 4 + sorted(CELLS)).flatmap(
            lambda kind: st.tuples(
                st.just(kind), st.lists(CELLS[kind][1], min_size=rows, max_size=rows)
            )
        ),
        min_size=1, max_size=3,
    )
)  # fmt: skip


@many(200)
@given(COLUMNS, st.sampled_from(["", "", ":image", ":mask", ":", ":train"]), SHAPES, READ)
def test_tables_of_any_content(place, columns, choice, shape, read):
    made = {n: pyarrow.array(cells, CELLS[kind][0]) for n, (kind, cells) in columns.items()}
    load(place, {"a.parquet": table(made)}, f"a.parquet{choice}", shape, **read)


FOLDERS = st.lists(
    st.sampled_from(["train", "test", "Val", "assets", "data", ".git", "__MACOSX", "a b", "ü"]),
    max_size=2,
).map("/".join)
ENDS = ("1.png", "2.JPG", "run.json", "a.parquet", "test-00000-of-00001.parquet", "b.npz", "x")
GOOD = {
    "png": picture(3), "JPG": encode(shades(4), "JPEG"), "parquet": packed("parquet"),
    "npz": packed("npz"),
}  # fmt: skip
TREES = st.sampled_from([ENDS, ENDS[:2], ENDS[3:5]]).flatmap(
    lambda ends: st.dictionaries(
        st.tuples(FOLDERS, st.sampled_from(ends)),
        st.sampled_from([True] * 4 + [False]),
        max_size=6,
    )
)


@many(200)
@given(TREES, st.booleans(), st.sampled_from(["", "", ":train", ":all", ":Val", ":x:image"]), READ)
def test_folders_and_archives_of_any_files(place, tree, zipped, choice, read):
    files = {
        f"{folder}/{end}".lstrip("/"): GOOD.get(end.rpartition(".")[2], b"{}") if good else b"bad"
        for (folder, end), good in tree.items()
    }
    if not zipped:
        load(
            place,
            {"set/y": b"", **{f"set/{k}": v for k, v in files.items()}},
            f"set{choice}",
            **read,
        )
        return
    save_zip(place / "a.zip", files)
    load(place, {"a.zip": (place / "a.zip").read_bytes()}, f"a.zip{choice}", **read)


BEGINNINGS = st.sampled_from([
    b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0*", b"PK\3\4", b"\x93NUMPY\1\0",
    b"PAR1", b"\x1f\x8b\x08", b"\0\0\x08\x03", b"\0\0\x08", b"\x80\x04", b"RIFF....WEBP", b"BM",
    b"\xff\xd8\xff",
])  # fmt: skip
ENDINGS = st.sampled_from(["png", "gif", "tif", "npy", "npz", "zip", "parquet", "gz", "tar", ""])


@many(100)
@given(BEGINNINGS, st.binary(max_size=60), ENDINGS, st.booleans())
def test_any_content_under_any_name(place, beginning, rest, ending, alone):
    name = f"a.{ending}".rstrip(".")
    load(place, {name: beginning + rest}, name if alone else "")


@many(100)
@given(st.lists(st.sampled_from(["good", "small", "cut", "text"]), max_size=4), st.booleans())
def test_what_is_decoded_into_the_cache_is_whole_or_not_there(place, kinds, skip_damaged):
    cache = place / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    files = {
        "good": encoded("PNG", "L"), "small": picture(5), "cut": picture(7)[:50], "text": b"text",
    }  # fmt: skip
    source = place / "public"
    shutil.rmtree(source, ignore_errors=True)
    save_files(source, {f"{i}.png": files[kind] for i, kind in enumerate(kinds)} | {"x": b""})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMD_DDM_CACHE", str(cache))
        name = f"fashion_mnist:{source}"
        images = attempt(lambda: load_images(name, skip_damaged=skip_damaged))
        kept = sorted(path.suffix for path in cache.rglob("*") if path.is_file())
        if images is None:
            assert kept == []
            return
        again = load_images(name, skip_damaged=skip_damaged)
    assert kept == [".pixels"]
    assert torch.equal(again.pixels, images.pixels)
    assert again.told == images.told
    bad = sum(kind in ("cut", "text") for kind in kinds)
    assert any(f"left out {counted(bad, 'picture')} of" in line for line in again.told) == (
        bad > 0
    )
    assert any(f"enlarged {len(images)} of the" in line for line in again.told)
