"""Every source of images gives the same pixels, or one line that names what is wrong with it."""

import contextlib
import gzip
import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, functional

from mmd_ddm.data.images import BUNDLED, ImageSet, batch, load_images


@pytest.fixture
def grey() -> np.ndarray:
    """[n, h, w], asymmetric on purpose."""
    return np.random.default_rng(0).integers(0, 256, (5, 6, 9), dtype=np.uint8)


@pytest.fixture
def colour() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (5, 6, 9, 3), dtype=np.uint8)


def expected(array: np.ndarray) -> torch.Tensor:
    if array.ndim == 3:
        array = array[..., None]
    return torch.from_numpy(array.copy()).permute(0, 3, 1, 2)


def encode(image: np.ndarray, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def write_folder(folder, images):
    """Written in reverse, into two sub-folders, beside a file that is no image."""
    for i, image in reversed(list(enumerate(images))):
        file = folder / "ab"[i // 3] / f"{i}.PNG"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(image))
    (folder / "README.txt").write_text("no image")
    return folder


def write_zip(path, images):
    with zipfile.ZipFile(path, "w") as archive:
        for i, image in reversed(list(enumerate(images))):
            archive.writestr(f"{'ab'[i // 3]}/{i}.png", encode(image))
        archive.writestr("README.txt", "no image")
    return path


def idx(array: np.ndarray) -> bytes:
    sizes = np.array(array.shape, dtype=">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def write(kind, folder, images):
    """The images as a source of that kind."""
    if kind == "folder":
        return write_folder(folder / "images", images)
    if kind == "zip":
        return write_zip(folder / "images.zip", images)
    path = folder / {"idx": "images-idx3-ubyte", "idx.gz": "images-idx3-ubyte.gz"}.get(
        kind, f"images.{kind}"
    )
    if kind == "npy":
        np.save(path, images)
    elif kind == "npz":
        np.savez_compressed(path, images=images)
    else:
        path.write_bytes(idx(images) if kind == "idx" else gzip.compress(idx(images)))
    return path


class TestSources:
    @pytest.mark.parametrize("kind", ["folder", "zip", "idx", "idx.gz", "npy", "npz"])
    def test_grey(self, kind, grey, tmp_path):
        images = load_images(write(kind, tmp_path, grey), (1, 6, 9))
        assert torch.equal(images.pixels, expected(grey))
        assert len(images) == 5

    @pytest.mark.parametrize("kind", ["folder", "zip", "npy", "npz"])
    @pytest.mark.parametrize("shape", [(3, 6, 9), None])
    def test_colour(self, kind, shape, colour, tmp_path):
        images = load_images(str(write(kind, tmp_path, colour)), shape)
        assert torch.equal(images.pixels, expected(colour))

    @pytest.mark.parametrize("kind", ["folder", "zip"])
    def test_grey_pictures_are_read_in_colour_unless_told(self, kind, grey, tmp_path):
        source = write(kind, tmp_path, grey)
        for shape in (None, (3, 6, 9)):
            pixels = load_images(source, shape).pixels
            assert torch.equal(pixels, expected(grey).expand(-1, 3, -1, -1))

    @pytest.mark.parametrize("kind", ["bmp", "webp", "jpg", "jpeg"])
    def test_other_formats(self, kind, tmp_path):
        flat = np.full((4, 4, 3), 77, dtype=np.uint8)
        content = encode(flat, {"jpg": "jpeg"}.get(kind, kind))
        (tmp_path / f"a.{kind}").write_bytes(content)
        pixels = load_images(tmp_path, (3, 4, 4)).pixels
        assert int((pixels.int() - 77).abs().max()) <= 1

    def test_bundled_sets_have_names(self):
        for name in BUNDLED:
            images = load_images(name, (1, 28, 28))
            assert images.source == name
            assert len(images) >= 1000
            assert len(images.pixels.unique()) == 256

    def test_hash_is_of_pixels_and_shape_not_of_the_file(self, colour, tmp_path):
        sources = [write(kind, tmp_path, colour) for kind in ("folder", "zip", "npy", "npz")]
        hashes = {load_images(source).sha256 for source in sources}
        assert len(hashes) == 1
        pixels = expected(colour)
        changed = pixels.clone()
        changed[4, 2, 5, 8] ^= 1
        assert ImageSet(changed, "").sha256 not in hashes
        assert ImageSet(pixels.reshape(5, 3, 9, 6), "").sha256 not in hashes


class TestResize:
    @pytest.mark.parametrize("size", [(8, 16), (16, 8)])
    def test_pictures_are_scaled_and_cropped_as_torchvision_does(self, size, tmp_path):
        picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        (tmp_path / "a.png").write_bytes(encode(picture))
        scaled = functional.resize(Image.fromarray(picture), 4, InterpolationMode.BICUBIC)
        middle = np.array(functional.center_crop(scaled, [4, 4]))
        pixels = load_images(tmp_path, (3, 4, 4), resize=True).pixels
        # Pillow rounds between its two passes, so the order of cropping shows in a last digit.
        assert int((pixels.int() - expected(middle[None]).int()).abs().max()) <= 1

    def test_odd_shapes_become_the_shape_asked_for(self, tmp_path):
        """The sides red, the middle green: what is left is green but for the kernel's reach."""
        wide = np.zeros((13, 29, 3), dtype=np.uint8)
        wide[:, :, 0] = 200
        wide[:, 8:21] = [0, 200, 0]
        (tmp_path / "wide.png").write_bytes(encode(wide))
        pixels = load_images(tmp_path, (3, 5, 5), resize=True).pixels
        assert pixels.shape == (1, 3, 5, 5)
        assert torch.equal(pixels[0, :, :, 2], torch.tensor([[0], [200], [0]]).expand(3, 5).byte())
        assert int(pixels[0, 0].max()) < 60

    def test_images_that_fit_are_left_alone(self, colour, tmp_path):
        source = write("folder", tmp_path, colour)
        assert torch.equal(load_images(source, (3, 6, 9), resize=True).pixels, expected(colour))

    def test_colour_becomes_grey(self, colour, tmp_path):
        source = write("zip", tmp_path, colour)
        pixels = load_images(source, (1, 6, 9), resize=True).pixels
        luma = (colour * [0.299, 0.587, 0.114]).sum(-1)
        assert np.abs(pixels[:, 0].numpy() - luma).max() < 1


class TestRefusals:
    @pytest.mark.parametrize("kind", ["folder", "zip", "idx", "idx.gz", "npy", "npz"])
    def test_a_wrong_size_is_named(self, kind, grey, tmp_path):
        source = write(kind, tmp_path, grey)
        message = r"9x6 pixels; 8x8 are needed|images of 1x6x9; the model takes 1x8x8"
        with pytest.raises(ValueError, match=message) as caught:
            load_images(source, (1, 8, 8))
        assert str(source) in str(caught.value)

    def test_one_image_of_another_size_is_named(self, colour, tmp_path):
        source = write("folder", tmp_path, colour)
        (source / "b" / "odd.png").write_bytes(encode(colour[0, :5]))
        with pytest.raises(
            ValueError, match=r"odd.png is 9x5 pixels; 9x6 are needed; pass --resize"
        ):
            load_images(source)

    def test_colour_for_a_grey_model_is_named(self, colour, tmp_path):
        with pytest.raises(ValueError, match=r"0.PNG has channels RGB.*--resize"):
            load_images(write("folder", tmp_path, colour), (1, 6, 9))
        with pytest.raises(ValueError, match="images of 3x6x9; the model takes 1x6x9"):
            load_images(write("npy", tmp_path, colour), (1, 6, 9))

    def test_pictures_have_no_four_channels(self, colour, tmp_path):
        with pytest.raises(ValueError, match="1 or 3 channels; the model takes 4"):
            load_images(write("folder", tmp_path, colour), (4, 6, 9))

    @pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 30])
    def test_a_corrupt_image_is_named(self, content, colour, tmp_path):
        source = write("folder", tmp_path, colour)
        (source / "b" / "bad.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad.png cannot be read: it is "):
            load_images(source)

    def test_a_truncated_image_is_named(self, colour, tmp_path):
        whole = encode(colour[0])
        (tmp_path / "cut.png").write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(
            ValueError,
            match=r"cut.png cannot be read: it is a PNG picture, damaged \(image file is trunc",
        ):
            load_images(tmp_path)

    def test_a_png_with_a_broken_header_is_named(self, colour, tmp_path):
        content = bytearray(encode(colour[0]))
        content[8:12] = (2).to_bytes(4, "big")  # the header's length
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad.png cannot be read: it is "):
            load_images(tmp_path)

    @pytest.mark.parametrize("kind", ["idx", "idx.gz", "npy", "npz", "zip"])
    def test_truncated_files_are_named(self, kind, grey, tmp_path):
        source = write(kind, tmp_path, grey)
        content = source.read_bytes()
        for size in (0, 3, 20, len(content) // 2, len(content) - 1):
            source.write_bytes(content[:size])
            with pytest.raises(
                ValueError, match=r"cannot be read: ((unpacked, )?it is|[0-9]+ bytes follow) "
            ) as caught:
                load_images(source)
            assert source.name in str(caught.value)

    @pytest.mark.parametrize("kind", ["idx.gz", "npy", "npz", "zip"])
    def test_damaged_files_give_a_value_error_or_images(self, kind, grey, tmp_path):
        source = write(kind, tmp_path, grey)
        whole, rng = source.read_bytes(), np.random.default_rng(0)
        read = 0
        for _ in range(60):
            content = bytearray(whole)
            for place in rng.integers(0, min(len(content), 120), 2):
                content[place] = rng.integers(256)
            source.write_bytes(content)
            with contextlib.suppress(ValueError):  # of all that numpy and zipfile raise
                load_images(source)
                read += 1
        assert read < 50

    def test_an_encrypted_archive_is_named(self, grey, tmp_path):
        source = write("zip", tmp_path, grey)
        content = bytearray(source.read_bytes())
        for start in (b"PK\x03\x04", b"PK\x01\x02"):  # set the flag in every header
            at = content.find(start)
            while at >= 0:
                content[at + (6 if start.endswith(b"\x04") else 8)] |= 1
                at = content.find(start, at + 1)
        source.write_bytes(content)
        with pytest.raises(ValueError, match=r"0.png cannot be read: .*password.*--skip-damaged"):
            load_images(source)

    def test_folders_and_archives_without_images_are_named(self, tmp_path):
        (tmp_path / "notes.txt").write_text("nothing")
        with pytest.raises(ValueError, match=r"holds no images \(.bmp, .gif.*; found 1 .txt$"):
            load_images(tmp_path)
        with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
            archive.writestr("notes.txt", "nothing")
        with pytest.raises(ValueError, match=r"empty.zip holds no images"):
            load_images(tmp_path / "empty.zip")

    @pytest.mark.parametrize("kind", ["idx", "npy"])
    def test_empty_arrays_are_named(self, kind, grey, tmp_path):
        with pytest.raises(ValueError, match="holds no images"):
            load_images(write(kind, tmp_path, grey[:0]))

    @pytest.mark.parametrize(
        "array",
        [
            np.zeros((4, 4), np.uint8),
            np.zeros((2, 4, 4), np.float32),
            np.arange(4, dtype=np.uint8),
        ],
        ids=["one image", "floats", "labels"],
    )
    def test_other_arrays_are_described(self, array, tmp_path):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(ValueError, match=rf"of {array.dtype}; uint8 \[n, h, w\] or") as caught:
            load_images(tmp_path / "a.npy")
        assert str(list(array.shape)) in str(caught.value)

    def test_idx_labels_are_described(self, tmp_path):
        (tmp_path / "labels-idx1-ubyte").write_bytes(idx(np.arange(4, dtype=np.uint8)))
        with pytest.raises(ValueError, match=r"holds an array \[4\] of uint8"):
            load_images(tmp_path / "labels-idx1-ubyte")

    def test_pickles_are_not_loaded(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        with pytest.raises(
            ValueError, match=r"a.npy cannot be read: .*Python objects, which are never"
        ):
            load_images(tmp_path / "a.npy")

    def test_nothing_there_lists_what_could_be(self, tmp_path):
        with pytest.raises(ValueError, match=r"no data at .*nowhere: .*fashion-mnist"):
            load_images(tmp_path / "nowhere")


def order(n, batch_size, seed, batches):
    return torch.cat([batch(n, batch_size, seed, step) for step in range(batches)])


class TestBatch:
    def test_each_epoch_is_an_order_of_all(self):
        epochs = order(10, 4, seed=0, batches=15).reshape(6, 10)
        assert torch.equal(epochs.sort(dim=1).values, torch.arange(10).expand(6, 10))
        assert len({tuple(e) for e in epochs.tolist()}) == 6

    @pytest.mark.parametrize("batch_size", [1, 3, 10, 25])
    def test_a_batch_is_named_by_its_step_alone(self, batch_size):
        whole = order(10, batch_size, seed=3, batches=12).split(batch_size)
        for step in (11, 3, 0, 7):
            assert torch.equal(batch(10, batch_size, 3, step), whole[step])

    def test_the_order_does_not_depend_on_the_batch_size(self):
        assert torch.equal(order(7, 2, seed=1, batches=21), order(7, 3, seed=1, batches=14))

    def test_the_seed_decides(self):
        first = [batch(50, 50, seed, 0).tolist() for seed in (0, 0, 1)]
        assert first[0] == first[1] != first[2]
