"""Pictures that nobody vouches for: skipped with a list, or refused by name; nothing else."""

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from mmd_ddm.data.images import load_images


def picture(mode="RGB", size=(4, 4), kind="PNG", **options):
    buffer = io.BytesIO()
    Image.new(mode, size, 77 if mode == "L" else 0).save(buffer, kind, **options)
    return buffer.getvalue()


GOOD = picture()
SKIPPED = {
    "notes.txt": b"a list of labels",
    ".hidden.png": b"junk",
    "._00.png": b"what a Mac leaves",
    "__MACOSX/._00.png": b"and puts into archives",
    "__MACOSX/00.png": b"junk",
    ".thumbs/00.png": GOOD,
}
READ = {
    "00.png": GOOD,
    "sub/grid.png": GOOD,
    "z/run.JPG": picture(kind="JPEG"),
}


def write(kind, folder, files):
    if kind == "zip":
        with zipfile.ZipFile(folder / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return folder / "set.zip"
    for name, content in files.items():
        (folder / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "set" / name).write_bytes(content)
    return folder / "set"


@pytest.mark.parametrize("kind", ["folder", "zip"])
class TestBoth:
    def test_what_is_no_picture_of_the_set_is_skipped_and_listed(self, kind, tmp_path):
        images = load_images(write(kind, tmp_path, {**SKIPPED, **READ}))
        assert len(images) == len(READ)
        assert sorted(images.skipped) == sorted(SKIPPED)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"\x89PNG and no more", "it is a PNG picture, damaged; --skip-damaged"),
            (GOOD[:45], r"it is a PNG picture, damaged \("),
            (
                b"%!PS-Adobe-3.0 EPSF-3.0\nshowpage",
                "it is a PostScript file; PNG, JPEG, WebP, BMP, GIF, TIFF are read",
            ),
            (picture("RGBA"), "is partly transparent"),
            (picture("LA"), "is partly transparent"),
            (
                picture(save_all=True, append_images=[Image.new("RGB", (4, 4), "red")]),
                "is animated or has pages, 2 frames",
            ),
            (
                picture(
                    kind="WEBP", save_all=True, append_images=[Image.new("RGB", (4, 4), "red")]
                ),
                "is animated or has pages, 2 frames",
            ),
        ],
    )
    def test_what_looks_like_one_and_is_not_is_refused(self, kind, content, said, tmp_path):
        source = write(kind, tmp_path, {"00.png": GOOD, "01.png": content})
        with pytest.raises(ValueError, match=said) as caught:
            load_images(source)
        assert "01.png" in str(caught.value)

    def test_a_decompression_bomb_is_refused_before_it_is_decoded(
        self, kind, tmp_path, monkeypatch
    ):
        source = write(kind, tmp_path, {"00.png": GOOD})
        monkeypatch.setattr(
            Image, "MAX_IMAGE_PIXELS", 7
        )  # Pillow warns there, and raises at twice
        with pytest.raises(ValueError, match=r"00.png has more than 14 pixels; scale it down"):
            load_images(source)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
        assert len(load_images(source)) == 1

    @pytest.mark.parametrize("mode", ["RGB", "P", "CMYK", "YCbCr", "1", "L"])
    def test_other_modes_become_colour(self, kind, mode, tmp_path):
        name = {"CMYK": "a.jpg", "YCbCr": "a.jpg"}.get(mode, "a.png")
        content = picture(mode, kind="JPEG" if name == "a.jpg" else "PNG")
        assert load_images(write(kind, tmp_path, {name: content})).pixels.shape == (1, 3, 4, 4)

    def test_a_picture_that_lies_on_its_side_is_turned(self, kind, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # turn by a quarter
        array = np.zeros((2, 3), np.uint8)
        array[0, 0] = 255
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG", exif=exif)
        pixels = load_images(write(kind, tmp_path, {"a.png": buffer.getvalue()}), (1, 3, 2)).pixels
        assert pixels[0, 0].tolist() == [[0, 255], [0, 0], [0, 0]]


class TestFolders:
    def test_links_in_a_circle_end(self, tmp_path):
        source = write("folder", tmp_path, {"a/00.png": GOOD})
        (source / "a" / "round").symlink_to(source)
        images = load_images(source)
        assert (len(images), images.skipped) == (1, ("a/round",))

    def test_a_link_to_itself_is_refused(self, tmp_path):
        source = write("folder", tmp_path, {"00.png": GOOD})
        (source / "01.png").symlink_to(source / "01.png")
        with pytest.raises((ValueError, OSError), match=r"01.png|symbolic links"):
            load_images(source)

    def test_a_file_that_has_vanished_is_named(self, tmp_path):
        source = write("folder", tmp_path, {"00.png": GOOD})
        (source / "01.png").symlink_to(source / "gone.png")
        with pytest.raises(ValueError, match=r"01.png cannot be read: No such file"):
            load_images(source)

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        source = write("folder", tmp_path, {"00.png": GOOD})
        os.mkfifo(source / "01.png")
        with pytest.raises(ValueError, match=r"01.png cannot be read: it is not a regular file"):
            load_images(source)

    def test_a_folder_that_may_not_be_read_is_named(self, tmp_path, monkeypatch):
        """Not as a set that is smaller than it is."""
        source = write("folder", tmp_path, {"00.png": GOOD, "shut/01.png": GOOD})
        scandir = os.scandir

        def forbidding(path):
            if os.fspath(path).endswith("shut"):
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", forbidding)
        with pytest.raises(ValueError, match=r"cannot read the folder .*shut: Permission denied"):
            load_images(source)


class TestArchives:
    def test_names_that_lead_outside_lead_nowhere(self, tmp_path):
        (tmp_path / "in").mkdir()
        names = ["../outside.png", "/absolute.png", "a/../../b.png", "C:\\c.png"]
        source = write("zip", tmp_path / "in", dict.fromkeys(names, GOOD))
        images = load_images(source)
        assert (len(images), images.skipped) == (2, ("../outside.png", "a/../../b.png"))
        assert [p.name for p in tmp_path.rglob("*.png")] == []

    def test_a_file_that_unpacks_to_too_much_is_refused_unread(self, tmp_path, monkeypatch):
        monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was read"))
        source = write("zip", tmp_path, {"bomb.png": bytes(2**28 + 1)})
        assert source.stat().st_size < 3e5
        with pytest.raises(ValueError, match=r"bomb.png unpacks to 268,435,457 bytes"):
            load_images(source)

    def test_no_more_of_an_idx_is_unpacked_than_it_announces(self, tmp_path, monkeypatch):
        import gzip

        path = tmp_path / "images.gz"
        header = bytes([0, 0, 8, 3]) + np.array([2, 4, 4], ">u4").tobytes()
        path.write_bytes(gzip.compress(header + bytes(10**7)))
        read = []
        original = gzip.GzipFile.read
        monkeypatch.setattr(
            gzip.GzipFile, "read", lambda self, size=-1: read.append(size) or original(self, size)
        )
        with pytest.raises(
            ValueError,
            match=r"gz cannot be read: more bytes follow where its head announces \[2, 4, 4\]",
        ):
            load_images(path)
        assert max(read) == 32
        assert min(read) >= 0
