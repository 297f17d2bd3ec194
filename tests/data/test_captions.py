"""Captions and labels that lie beside pictures, in folders and zip archives."""

import json

import pytest
from picture_files import picture, save_files, save_zip

from mmd_ddm.data.images import ImageSet, load_images
from mmd_ddm.data.split import split_images

N = 5


def lines(n=N, **more):
    rows = [{"file_name": f"{i}.png", "text": f"shade {i}", "label": i % 2} for i in range(n)]
    return "".join(json.dumps({**row, **more}) + "\n" for row in rows).encode()


def sheet(n=N):
    return (
        "file_name,label,caption\n" + "".join(f'{i}.png,{i % 2},"shade {i}"\n' for i in range(n))
    ).encode()


LAYOUTS = {
    "jsonl": {"metadata.jsonl": lines()},
    "csv": {"metadata.csv": b"\xef\xbb\xbf" + sheet()},
    "texts": {f"{i}.txt": f" shade {i}\n".encode() for i in range(N)},
}


def save(place, layout, *, zipped=False, inner=""):
    files = {f"{i}.png": picture(i) for i in range(N)} | LAYOUTS[layout]
    files = {inner + name: content for name, content in files.items()}
    return save_zip(place / "set.zip", files) if zipped else save_files(place / "set", files)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("inner", ["", "photos/train/"])
def test_each_picture_has_its_own(layout, inner, zipped, tmp_path):
    source = save(tmp_path, layout, zipped=zipped, inner=inner)
    images = load_images(source, captions=True)
    shades = images.pixels[:, 0, 0, 0].tolist()
    assert images.captions == tuple(f"shade {value}" for value in shades)
    assert images.told[-1] == f"5 different captions of {source}, the first: shade 0"
    if layout != "texts":
        labelled = load_images(source, labels=True)
        assert labelled.labels.tolist() == [value % 2 for value in shades]
        assert labelled.classes == ("0", "1")
    assert images.skipped == ()
    assert load_images(source).captions == ()


def test_damaged_pictures_take_their_captions_along(tmp_path):
    source = save(tmp_path, "jsonl")
    (source / "2.png").write_bytes(b"junk")
    images = load_images(source, captions=True, labels=True, skip_damaged=True)
    assert images.captions == ("shade 0", "shade 1", "shade 3", "shade 4")
    assert images.labels.tolist() == [0, 1, 1, 0]


def test_pictures_without_one_are_named_before_any_is_decoded(tmp_path):
    source = save(tmp_path, "texts")
    (source / "0.png").write_bytes(b"junk")
    (source / "1.txt").unlink()
    (source / "3.txt").write_text(" \n")
    with pytest.raises(ValueError, match=r"2 of the 5 pictures of .* no caption \(1.png, 3.png\)"):
        load_images(source, captions=True)
    (source / "metadata.jsonl").write_bytes(lines(3))
    with pytest.raises(ValueError, match=r"2 of the 5 .* \(3.png, 4.png\): give a metadata.jsonl"):
        load_images(source, captions=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "metadata.jsonl of .* cannot be read"),
        (b"3\n", "metadata.jsonl of .* cannot be read"),
        (b'{"text": "a"}\n', "metadata.jsonl of .* has lines without the file_name"),
        (b"\xff\xfe", "metadata.jsonl of .* cannot be read"),
        (lines(text=3), ""),
        (lines(text=None), "holds no captions"),
    ],
)
def test_other_lines_are_one_line(content, said, tmp_path):
    source = save_files(tmp_path, {f"{i}.png": picture(i) for i in range(N)})
    (source / "metadata.jsonl").write_bytes(content)
    if not said:
        assert load_images(source, captions=True).captions == ("3",) * N
        return
    with pytest.raises(ValueError, match=said) as refused:
        load_images(source, captions=True)
    assert "\n" not in str(refused.value)


def test_what_has_no_captions_is_refused(tmp_path):
    plain = save_files(tmp_path / "plain", {"0.png": picture(0)})
    with pytest.raises(ValueError, match=r"plain holds no captions: give a metadata.jsonl"):
        load_images(plain, captions=True)
    with pytest.raises(ValueError, match="holds no captions: arrays have none"):
        load_images("fashion-mnist", captions=True)


def test_a_split_keeps_them(tmp_path):
    n = 40
    files = {f"{i:02d}.png": picture(i) for i in range(n)}
    files |= {f"{i:02d}.txt": f"shade {i}".encode() for i in range(n)}
    images = load_images(save_files(tmp_path, files), captions=True)
    parts = split_images(images, None, seed=0, select=True)
    for part in (parts.matched, parts.heldout, parts.selection):
        assert isinstance(part, ImageSet)
        assert part.captions == tuple(f"shade {v}" for v in part.pixels[:, 0, 0, 0].tolist())
    assert {*parts.hashes} >= {"data_captions_sha256", "selection_captions_sha256"}
