"""What people bring is read, or refused with the way to have it read; nothing is lost unsaid."""

import io

import numpy as np
import pytest
import torch
from picture_files import encode, picture, save_files, save_table, save_zip, shades
from PIL import Image

from mmd_ddm.data.images import load_images
from mmd_ddm.data.kinds import kind_of


def with_alpha(*alpha: int) -> np.ndarray:
    """One row of pixels of colour (200, 100, 0) and these opacities."""
    return np.array([[(200, 100, 0, a) for a in alpha]], np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


class TestTransparency:
    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
    @pytest.mark.parametrize(
        ("background", "under"), {"white": 255, "black": 0, "#333333": 0x33}.items()
    )
    def test_is_laid_on_the_ground_that_is_asked_for(self, kind, background, under, tmp_path):
        content = encode(
            with_alpha(0, 255, 51), kind, **{"lossless": True} if kind == "WEBP" else {}
        )
        save_files(tmp_path, {"a.png": content})
        row = load_images(tmp_path, background=background).pixels[0, :, 0].T
        fifth = [round(0.2 * top + 0.8 * under) for top in (200, 100, 0)]
        expected = torch.tensor([[under] * 3, [200, 100, 0], fifth])
        assert (row.int() - expected).abs().max() <= 1

    def test_of_any_kind_is_refused_with_the_way_out(self, tmp_path):
        palette = Image.fromarray(shades(7)).convert("P")
        grey = encode(np.full((4, 4), 9, np.uint8), transparency=9)
        deep = encode(np.full((4, 4), 900, np.uint16), transparency=900)
        contents = {
            "alpha.png": encode(with_alpha(254)),
            "grey.png": grey,
            "deep.png": deep,
            "palette.png": encoded(palette, "PNG", transparency=palette.getpixel((0, 0))),
            "one.gif": encoded(palette, "GIF", transparency=palette.getpixel((0, 0))),
        }
        for name, content in contents.items():
            source = save_files(tmp_path / name, {name: content})
            with pytest.raises(ValueError, match=rf"{name} is partly transparent; pass --backgr"):
                load_images(source)
            if name != "alpha.png":
                assert load_images(source, background="#ff0000").pixels[0, :, 0, 0].tolist() == [
                    255, 0, 0,
                ]  # fmt: skip

    def test_that_is_none_needs_no_ground(self, tmp_path):
        save_files(tmp_path, {"a.png": encode(with_alpha(255, 255))})
        assert load_images(tmp_path).pixels[0, :, 0, 0].tolist() == [200, 100, 0]

    def test_a_grey_model_has_a_grey_ground(self, tmp_path):
        clear = encoded(Image.new("LA", (2, 1), (80, 0)), "PNG")
        save_files(tmp_path, {"a.png": clear})
        assert load_images(tmp_path, (1, 1, 2), background="white").pixels.unique() == 255

    @pytest.mark.parametrize("background", ["red", "#fff", "transparent", "#12345g", " white"])
    def test_another_ground_is_refused(self, background, tmp_path):
        with pytest.raises(ValueError, match="background is white, black or #rrggbb; got"):
            load_images(tmp_path, background=background)


class TestDepth:
    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_16_bits_of_grey_become_8(self, kind, channels, tmp_path):
        bytes_ = np.arange(256, dtype=np.uint16).reshape(16, 16)
        widened = {"shifted": bytes_ << 8, "repeated": bytes_ * 257}
        save_files(tmp_path, {f"{name}.tif": encode(a, kind) for name, a in widened.items()})
        pixels = load_images(tmp_path, (channels, 16, 16)).pixels
        assert torch.equal(pixels, torch.arange(256).byte().view(16, 16).expand_as(pixels))

    @pytest.mark.parametrize("dtype", [np.float32, np.int32])
    def test_32_bits_do_not_say_what_is_white(self, dtype, tmp_path):
        save_files(tmp_path, {"a.tiff": encode(np.zeros((4, 4), dtype), "TIFF")})
        with pytest.raises(ValueError, match=r"a.tiff has 32 bits a pixel.*convert it to 8 or 16"):
            load_images(tmp_path)


class TestFormats:
    @pytest.mark.parametrize(
        ("name", "kind"),
        {
            "a.tif": "TIFF",
            "a.TIFF": "TIFF",
            "a.jfif": "JPEG",
            "a.jpe": "JPEG",
            "a.gif": "GIF",
        }.items(),
    )
    def test_are_read(self, name, kind, tmp_path):
        save_files(tmp_path, {name: encode(shades(77), kind)})
        pixels = load_images(tmp_path).pixels
        assert int((pixels.int() - 77).abs().max()) <= 1

    @pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
    def test_of_several_frames_none_is_chosen(self, kind, tmp_path):
        more = {"save_all": True, "append_images": [Image.fromarray(shades(200))]}
        save_files(tmp_path, {"a.png": encode(shades(77), kind, **more), "b.png": picture(1)})
        with pytest.raises(ValueError, match=r"a.png is animated or has pages, 2 frames"):
            load_images(tmp_path)
        assert len(load_images(tmp_path, skip_damaged=True)) == 1

    @pytest.mark.parametrize("zipped", [False, True])
    def test_what_is_there_instead_is_named(self, zipped, tmp_path):
        names = [*(f"{i}.HEIC" for i in range(12)), "a.txt", "b.txt", "LICENSE"]
        files = dict.fromkeys(names, b"?")
        source = save_zip(tmp_path / "a.zip", files) if zipped else save_files(tmp_path, files)
        said = r"holds no images \(.bmp.*\); found 12 .heic, 2 .txt, 1 without ending$"
        with pytest.raises(ValueError, match=said):
            load_images(source)

    def test_what_is_skipped_is_counted_by_kind(self, tmp_path):
        save_files(tmp_path, {"a.png": picture(1), **{f"{i}.heic": b"?" for i in range(7)}})
        images = load_images(tmp_path)
        assert len(images.skipped) == 7
        assert images.told[1] == (
            f"skipped 7 files of {tmp_path}: 7 .heic "
            "(0.heic, 1.heic, 2.heic, 3.heic, 4.heic and 2 more)"
        )

    def test_names_cannot_move_the_cursor(self, tmp_path):
        (tmp_path / "a.png").write_bytes(picture(1))
        (tmp_path / "b\x1b[2J\n.txt").write_text("?")
        (tmp_path / "c\udcff.txt").write_text("?")
        told = load_images(tmp_path).told[1]
        assert told == f"skipped 2 files of {tmp_path}: 2 .txt (b?[2J?.txt, c?.txt)"


class TestSizes:
    def test_enlarged_pictures_are_counted(self, tmp_path):
        sizes = {"a": (2, 2), "b": (8, 8), "c": (8, 3), "d": (9, 9), "e": (4, 4)}
        save_files(tmp_path, {f"{name}.png": picture(7, size) for name, size in sizes.items()})
        images = load_images(tmp_path, (3, 8, 8), resize=True)
        said = f"enlarged 3 of the 5 images of {tmp_path}, the smallest from 2x2"
        assert images.told[1:] == (said,)

    @pytest.mark.parametrize("size", [(29, 29), (29, 300), (58, 58), (1, 500), (124, 143)])
    def test_rounding_does_not_lead_out_of_the_picture(self, size, tmp_path):
        save_files(tmp_path, {"a.png": picture(7, size)})
        for shape in ((3, 28, 28), (3, 13, 15)):
            assert load_images(tmp_path, shape, resize=True).pixels.unique() == 7

    @pytest.mark.parametrize("dtype", ["grey", "colour"])
    @pytest.mark.parametrize("ending", ["npy", "npz"])
    def test_arrays_are_scaled_as_their_pictures_are(self, dtype, ending, tmp_path):
        shape = (3, 6, 9) if dtype == "grey" else (3, 6, 9, 3)
        array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        save_files(tmp_path / "set", {f"{i}.png": encode(a) for i, a in enumerate(array)})
        path = tmp_path / f"a.{ending.upper()}"
        with path.open("wb") as file:
            np.save(file, array) if ending == "npy" else np.savez(file, array)
        for wanted in ((3, 4, 4), (1, 4, 4), (3, 8, 9), (1, 6, 9), (3, 6, 9)):
            pictures = load_images(tmp_path / "set", wanted, resize=True)
            arrays = load_images(path, wanted, resize=True)
            assert torch.equal(arrays.pixels, pictures.pixels)
            assert len(arrays.told) == len(pictures.told) == (2 if wanted[1] == 8 else 1)
        with pytest.raises(ValueError, match=r"the model takes 3x4x4; pass --resize"):
            load_images(path, (3, 4, 4))

    def test_arrays_with_channels_first_are_named(self, tmp_path):
        np.save(tmp_path / "a.npy", np.zeros((2, 3, 8, 8), np.uint8))
        for shape in (None, (3, 8, 8)):
            with pytest.raises(ValueError, match=r"\[2, 3, 8, 8\], channels first; put them last"):
                load_images(tmp_path / "a.npy", shape, resize=True)


class TestManyBadOnes:
    def source(self, folder, n):
        bad = {f"bad{i:02d}.png": b"some text" for i in range(n)}
        return save_files(folder, {"a.png": picture(1), "b.png": picture(2), **bad})

    def test_all_are_counted_and_ten_are_named(self, tmp_path):
        with pytest.raises(ValueError, match=r"bad00.png cannot be read: it is text") as caught:
            load_images(self.source(tmp_path, 23))
        said = str(caught.value)
        assert "\n" not in said
        assert [f"bad{i:02d}.png" in said for i in range(23)] == [i < 10 for i in range(23)]
        assert said.endswith(
            "; and 13 more pictures; --skip-damaged leaves out what cannot be read"
        )

    def test_each_reason_is_said_once_and_only_what_helps(self, tmp_path):
        files = {"0.png": picture(0), "1.png": picture(1, (3, 3)), "2.png": picture(2, (3, 3))}
        save_files(tmp_path, {**files, "3.png": encode(with_alpha(9))})
        with pytest.raises(ValueError, match="are needed") as caught:
            load_images(tmp_path)
        assert str(caught.value) == (
            f"{tmp_path}/1.png is 3x3 pixels; 4x4 are needed; pass --resize to crop and scale "
            f"(likewise {tmp_path}/2.png); {tmp_path}/3.png is partly transparent; pass "
            "--background white, black or #rrggbb"
        )

    def test_reading_stops_where_nothing_is_as_it_should_be(self, tmp_path, monkeypatch):
        from mmd_ddm.data import pictures

        monkeypatch.setattr(pictures, "_ENOUGH", 12)
        with pytest.raises(ValueError, match="and 2 more pictures, after which reading stopped"):
            load_images(self.source(tmp_path, 30))

    @pytest.mark.parametrize("kind", ["folder", "zip", "table"])
    def test_damaged_ones_are_left_out_where_that_is_asked_for_and_said(self, kind, tmp_path):
        contents = [picture(1), b"", picture(2), picture(3)[:40], b"<html></html>"]
        files = {f"{i}.png": content for i, content in enumerate(contents)}
        if kind == "table":
            source = save_table(tmp_path / "a.parquet", image=[*contents, None])
        elif kind == "zip":
            source = save_zip(tmp_path / "a.zip", files)
        else:
            source = save_files(tmp_path / "a", {**files, "5.png": b"junk"})
        with pytest.raises(ValueError, match="--skip-damaged leaves out what cannot be read"):
            load_images(source)
        images = load_images(source, skip_damaged=True)
        assert images.pixels[:, 0, 0, 0].tolist() == [1, 2]
        bad = 3 if kind == "zip" else 4
        told = images.told[1]
        assert told.startswith(
            f"left out {bad} pictures of {source} that cannot be read, of {bad + 2}:"
        )

    def test_where_all_are_damaged_there_are_none(self, tmp_path):
        save_files(tmp_path, {"a.png": b"", "b.png": b"?"})
        with pytest.raises(ValueError, match=r"holds no images .*found 2 that cannot be read"):
            load_images(tmp_path, skip_damaged=True)

    def test_what_is_no_damage_is_not_left_out(self, tmp_path):
        save_files(tmp_path, {"a.png": picture(1), "b.png": picture(1, (3, 3))})
        with pytest.raises(ValueError, match=r"b.png is 3x3 pixels"):
            load_images(tmp_path, skip_damaged=True)


FILES = {
    "a PNG picture": picture(1),
    "a JPEG picture": encode(shades(1), "JPEG"),
    "a WebP picture": encode(shades(1), "WEBP"),
    "an empty file": b"",
    "text": "plain, in any tongue: häuser\n".encode(),
    "a web page": b"  <!DOCTYPE html><html>404</html>",
    "a HEIC picture": b"\0\0\0\x18ftypheic" + bytes(20),
    "a tar archive": b"photos/1.png".ljust(257, b"\0") + b"ustar\0" + bytes(249),
    "a gzip file": b"\x1f\x8b\x08" + bytes(20),
    "a pickle": b"\x80\x04\x95" + bytes(20),
    "an SVG drawing": b"<?xml version='1.0'?><svg xmlns=''/>",
    "a file of an unknown kind": bytes(range(200)),
}


class TestKinds:
    @pytest.mark.parametrize("kind", FILES)
    def test_are_told_by_how_a_file_begins(self, kind):
        assert kind_of(FILES[kind]) == kind

    @pytest.mark.parametrize("kind", FILES)
    @pytest.mark.parametrize(
        "name", ["a.tar", "a.npy", "a.npz", "a.zip", "a.parquet", "images.gz"]
    )
    def test_a_source_that_is_something_else_is_named_as_what_it_is(self, kind, name, tmp_path):
        save_files(tmp_path, {name: FILES[kind]})
        with pytest.raises(ValueError, match=rf"{name} cannot be read: .*it is {kind}") as caught:
            load_images(tmp_path / name)
        assert "object at" not in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_pointer_of_git_lfs_is_no_picture(self, tmp_path):
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
        save_files(tmp_path, {"a.png": pointer})
        with pytest.raises(ValueError, match=r"a.png cannot be read: it is a pointer of Git LFS"):
            load_images(tmp_path)

    def test_a_gzip_of_something_else_is_opened_to_say_so(self, tmp_path):
        import gzip

        save_files(tmp_path, {"photos.tar.gz": gzip.compress(FILES["a tar archive"])})
        with pytest.raises(
            ValueError, match="read: unpacked, it is a tar archive; read are folde"
        ):
            load_images(tmp_path / "photos.tar.gz")
