"""A public set is the same pixels wherever it lies, cut as the field cuts it."""

import io
import os
import zipfile

import datasets
import huggingface_hub
import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from torchvision.transforms import functional

from mmd_ddm.data.images import load_images
from mmd_ddm.data.public_sets import DATASETS, parse_request

N = 5


@pytest.fixture
def faces() -> list[bytes]:
    """Pictures of CelebA's size, in which every shift of the crop shows."""
    random = np.random.default_rng(0)
    files = []
    for _ in range(N):
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (218, 178, 3), np.uint8)).save(buffer, "png")
        files.append(buffer.getvalue())
    return files


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MMD_DDM_DATA", str(tmp_path))
    monkeypatch.setenv("MMD_DDM_CACHE", str(tmp_path / "cache"))
    return tmp_path


def expected(files: list[bytes]) -> torch.Tensor:
    """The transforms of ermongroup/ddim: rows 57 to 185, columns 25 to 153, Resize(64)."""
    cut = [
        functional.resize(functional.crop(Image.open(io.BytesIO(file)), 57, 25, 128, 128), [64])
        for file in files
    ]
    return torch.stack([functional.pil_to_tensor(picture) for picture in cut])


def save_folder(folder, files):
    folder.mkdir(parents=True)
    for i, file in enumerate(files):
        (folder / f"{i}.png").write_bytes(file)


def save_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for i, file in enumerate(files):
            archive.writestr(f"img_align_celeba/{i}.png", file)


def save_table(path, files):
    """As the hub keeps pictures: a struct of the file and its name, beside other columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [{"bytes": file, "path": f"{i}.png"} for i, file in enumerate(files)]
    parquet.write_table(pyarrow.table({"id": [*range(len(files))], "image": pictures}), path)


LAYOUTS = {
    "folder": lambda root, files: save_folder(root / "celeba", files),
    "folder of the part": lambda root, files: save_folder(root / "celeba/train", files),
    "zip": lambda root, files: save_zip(root / "celeba.zip", files),
    "table": lambda root, files: save_table(root / "celeba.parquet", files),
    "hub's tables": lambda root, files: [
        save_table(root / "celeba/data/train-00000-of-00002.parquet", files[:2]),
        save_table(root / "celeba/data/train-00001-of-00002.parquet", files[2:]),
        save_table(root / "celeba/data/test-00000-of-00001.parquet", files[:1]),
    ],
}


class TestLocal:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_celeba_is_the_crop_of_the_ddim_code(self, root, faces, layout):
        LAYOUTS[layout](root, faces)
        images = load_images("celeba")
        assert torch.equal(images.pixels, expected(faces))
        assert images.source == "celeba"

    def test_a_copy_can_lie_anywhere(self, root, faces):
        save_zip(root / "faces.zip", faces)
        assert torch.equal(load_images(f"celeba:{root}/faces.zip").pixels, expected(faces))
        with pytest.raises(ValueError, match="no celeba at nowhere"):
            load_images("celeba:nowhere")

    @pytest.mark.parametrize("place", ["celeba-heldout", "celeba/test"])
    def test_the_held_out_part_lies_beside_or_within(self, root, faces, place):
        save_folder(root / "celeba/train", faces[:3])
        save_folder(root / place, faces[3:])
        assert torch.equal(load_images("celeba-heldout").pixels, expected(faces[3:]))
        assert torch.equal(load_images("celeba").pixels, expected(faces[:3]))

    def test_of_the_hubs_tables_the_held_out_ones_are_taken(self, root, faces):
        LAYOUTS["hub's tables"](root, faces)
        assert torch.equal(load_images("celeba-heldout").pixels, expected(faces[:1]))

    def test_pictures_are_decoded_once_and_again_when_they_change(self, root, faces):
        save_folder(root / "celeba", faces)
        first = load_images("celeba")
        path = root / "celeba/0.png"
        about, content = path.stat(), path.read_bytes()
        path.write_bytes(bytes(len(content)))  # unreadable, and looks as it did
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
        assert torch.equal(load_images("celeba").pixels, first.pixels)
        (root / "celeba/0.png").unlink()
        assert torch.equal(load_images("celeba").pixels, first.pixels[1:])

    def test_a_broken_picture_leaves_nothing_behind(self, root, faces):
        save_folder(root / "celeba", [*faces, b"junk"])
        with pytest.raises(ValueError, match=r"5\.png cannot be read: it is text"):
            load_images("celeba")
        assert list((root / "cache/images").iterdir()) == []

    def test_a_count_takes_some_always_the_same(self, root, faces):
        save_zip(root / "celeba.zip", faces)
        some = load_images("celeba:3").pixels
        assert len({image.numpy().tobytes() for image in some}) == 3
        assert torch.equal(some, load_images("celeba:3").pixels)
        assert all(any(torch.equal(x, y) for y in expected(faces)) for x in some)

    def test_another_shape_needs_to_be_asked_for(self, root, faces):
        save_folder(root / "celeba", faces)
        with pytest.raises(ValueError, match="celeba has images of 3x64x64; the model takes 1x32"):
            load_images("celeba", (1, 32, 32))
        assert load_images("celeba", (1, 32, 32), resize=True).pixels.shape == (N, 1, 32, 32)

    def test_pictures_smaller_than_the_crop_are_refused(self, root):
        small = io.BytesIO()
        Image.new("RGB", (100, 100)).save(small, "png")
        save_folder(root / "celeba", [small.getvalue()])
        with pytest.raises(ValueError, match="100x100 pixels; the crop of this set reaches to"):
            load_images("celeba")


class TestHub:
    @pytest.fixture
    def hub(self, monkeypatch, root, faces):
        asked = []

        def load_dataset(hub_id, split, streaming):
            asked.append((hub_id, split, streaming))
            pictures = [{"bytes": file, "path": None} for file in faces]
            columns = {"label": [*range(N)], "image": pictures}
            return datasets.Dataset.from_dict(columns).to_iterable_dataset()

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        info = lambda self, name, timeout: asked.append(name)  # noqa: E731
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
        return asked

    def test_a_set_is_streamed_once(self, hub, faces):
        for _ in range(2):
            assert torch.equal(load_images("celeba").pixels, expected(faces))
        assert hub == ["flwrlabs/celeba", ("flwrlabs/celeba", "train", True)]
        load_images("celeba-heldout")
        assert hub[-1] == ("flwrlabs/celeba", "test", True)

    def test_a_count_streams_no_more(self, hub, faces):
        assert len(load_images("celeba:2")) == 2

    @pytest.mark.parametrize("name", DATASETS)
    def test_offline_every_set_is_one_line_that_says_its_hub_id(self, root, name):
        with pytest.raises(ValueError, match="offline") as caught:
            load_images(name)
        text = str(caught.value)
        assert (
            f"hf download --repo-type dataset {DATASETS[name].hub_id} --local-dir {name}" in text
        )
        assert "MMD_DDM_DATA" in text
        assert "\n" not in text


def test_any_table_of_pictures_is_data(tmp_path, faces):
    save_table(tmp_path / "all.parquet", faces)
    save_table(tmp_path / "tables/a.parquet", faces[:3])
    save_table(tmp_path / "tables/b.parquet", faces[3:])
    save_folder(tmp_path / "folder", faces)
    pixels = load_images(tmp_path / "folder").pixels
    assert torch.equal(load_images(tmp_path / "all.parquet").pixels, pixels)
    tables = load_images(tmp_path / "tables")
    assert torch.equal(tables.pixels, pixels)
    assert tables.skipped == ()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"x": [1, 2]}, r"holds no column of images; its columns are x$"),
        (
            {"image": [{"bytes": None, "path": "a.png"}] * 2},
            r"parquet:0 cannot be read: the table names a.png and does not hold it \(likewise",
        ),
    ],
)
def test_a_table_without_pictures_is_refused(tmp_path, table, said):
    if "image" in table:
        kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
        table = {"image": pyarrow.array(table["image"], kind)}
    parquet.write_table(pyarrow.table(table), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=said):
        load_images(tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"t.parquet cannot be read: it is text"):
        load_images(tmp_path / "t.parquet")


def test_names_are_parsed():
    assert parse_request("imagenet64-heldout:50").count == 50
    assert parse_request("imagenet64-heldout:50").heldout
    assert parse_request("celeba:a/b.zip").place == "a/b.zip"
    for other in ("fashion-mnist", "celeba-test", "./celeba", ""):
        assert parse_request(other) is None
