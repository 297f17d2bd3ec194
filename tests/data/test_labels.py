"""Labels stay with their pictures, from wherever they are read to the parts of a split."""

import gzip
import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from mmd_ddm.data.images import ImageSet, load_images
from mmd_ddm.data.split import split_images

CLASSES = {"zebra": 3, "ant": 4, "Cat": 2}  # sorted: Cat, ant, zebra


def picture(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def files(inner=""):
    """Pictures by name; the value of each says its class and number."""
    names = sorted(CLASSES)
    return {
        f"{inner}{name}/{i}.png": picture(50 * names.index(name) + i)
        for name, count in CLASSES.items()
        for i in range(count)
    }


def write_folder(folder, content):
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_zip(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def check(images, classes=("Cat", "ant", "zebra")):
    assert images.classes == classes
    assert images.labels.dtype == torch.int64
    assert torch.equal(images.labels, images.pixels[:, 0, 0, 0].long() // 50)


def idx(array):
    sizes = np.array(array.shape, dtype=">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def arrays(n=7):
    labels = np.arange(n, dtype=np.uint8) % 3
    return np.tile((50 * labels)[:, None, None], (1, 4, 4)), labels


def test_class_folders_have_the_numbers_of_torchvision(tmp_path):
    images = load_images(write_folder(tmp_path / "set", files()), labels=True)
    check(images)
    theirs = ImageFolder(tmp_path / "set")
    assert list(images.classes) == theirs.classes
    assert sorted(images.labels.tolist()) == sorted(theirs.targets)
    assert images.told[-1] == f"3 classes of {tmp_path / 'set'}: Cat, ant, zebra"


@pytest.mark.parametrize("inner", ["", "photos/", "photos/train/"])
def test_folders_around_the_classes_are_none(tmp_path, inner):
    check(load_images(write_zip(tmp_path / "set.zip", files(inner)), labels=True))


def test_of_all_splits_the_classes_are_the_same(tmp_path):
    write_folder(tmp_path / "set", files("train/") | files("test/"))
    for choice, count in (("train", 9), ("all", 18)):
        images = load_images(f"{tmp_path / 'set'}:{choice}", labels=True)
        check(images)
        assert len(images) == count


def test_the_current_folder_has_classes_too(tmp_path, monkeypatch):
    write_folder(tmp_path, files())
    monkeypatch.chdir(tmp_path)
    check(load_images(".", labels=True))


def test_a_list_of_edm_says_the_classes(tmp_path):
    content = {f"00000/{i}.png": picture(50 * (i % 3)) for i in range(6)}
    listed = [[name, i % 3] for i, name in enumerate(content)]
    content["dataset.json"] = json.dumps({"labels": listed}).encode()
    check(load_images(write_zip(tmp_path / "edm.zip", content), labels=True), ("0", "1", "2"))
    check(load_images(write_folder(tmp_path / "edm", content), labels=True), ("0", "1", "2"))
    content["dataset.json"] = json.dumps({"labels": listed[1:]}).encode()
    with pytest.raises(ValueError, match=r"1 of the 6 pictures .* no label \(00000/0.png\)"):
        load_images(write_zip(tmp_path / "hole.zip", content), labels=True)
    content["dataset.json"] = b'{"labels": 3}'
    with pytest.raises(ValueError, match=r"dataset\.json of .* cannot be read"):
        load_images(write_zip(tmp_path / "bad.zip", content), labels=True)


@pytest.mark.parametrize(
    "names", [("images", "labels"), ("arr_0", "arr_1"), ("x_train", "y_train"), ("images", "y")]
)
def test_arrays_lie_beside_each_other(tmp_path, names):
    pixels, labels = arrays()
    np.savez(tmp_path / "set.npz", **{names[0]: pixels, names[1]: labels[:, None].astype(int)})
    check(load_images(f"{tmp_path / 'set.npz'}", labels=True), ("0", "1", "2"))
    assert load_images(f"{tmp_path / 'set.npz'}").labels is None


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_has_a_twin(tmp_path, ending):
    pack = gzip.compress if ending else bytes
    file = tmp_path / f"t10k-images-idx3-ubyte{ending}"
    pixels, labels = arrays()
    file.write_bytes(pack(idx(pixels)))
    with pytest.raises(ValueError, match=f"no t10k-labels-idx1-ubyte{ending} lies beside it"):
        load_images(file, labels=True)
    (tmp_path / f"t10k-labels-idx1-ubyte{ending}").write_bytes(pack(idx(labels)))
    check(load_images(file, labels=True), ("0", "1", "2"))


def test_what_has_no_labels_is_refused_in_one_line(tmp_path):
    pixels, labels = arrays()
    plain = write_folder(tmp_path / "plain", {f"{i}.png": picture(i) for i in range(3)})
    mixed = write_folder(tmp_path / "mixed", files() | {"7.png": picture(7)})
    np.savez(tmp_path / "plain.npz", pixels)
    np.save(tmp_path / "plain.npy", pixels)
    np.savez(tmp_path / "short.npz", images=pixels, labels=labels[1:])
    np.savez(tmp_path / "onehot.npz", images=pixels, labels=np.eye(7)[:, :3])
    for source, message in (
        (plain, "holds no labels: put each picture into the folder of its class"),
        (mixed, r"1 of the 10 pictures of .* have no label \(7.png\)"),
        (tmp_path / "plain.npz", "holds no labels: its arrays are arr_0"),
        (tmp_path / "plain.npy", "holds no labels"),
        (tmp_path / "short.npz", "holds 6 labels for its 7 images"),
        (tmp_path / "onehot.npz", r"an array \[7, 3\] of float64; whole numbers"),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            load_images(source, labels=True)
        assert "\n" not in str(refused.value)


def numbered(n=60):
    """Image i has value i, and is of class 0 for every sixth of them, else 1."""
    pixels = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 1, 2, 2)
    labels = (torch.arange(n) % 6 > 0).long()
    return ImageSet(pixels.clone(), "a", labels=labels, classes=("few", "many"))


def test_splits_keep_labels_and_the_share_of_each_class():
    parts = split_images(numbered(), None, seed=0, select=True)
    for images, few in ((parts.heldout, 2), (parts.selection, 1), (parts.matched, 7)):
        values = images.pixels[:, 0, 0, 0].long()
        assert torch.equal(images.labels, (values % 6 > 0).long())
        assert (images.labels == 0).sum() == few
        assert images.classes == ("few", "many")
    assert [len(parts.heldout), len(parts.selection), len(parts.matched)] == [12, 4, 44]
    assert {*parts.hashes} >= {"data_labels_sha256", "heldout_labels_sha256"}


def test_what_is_left_out_leaves_the_labels_of_the_others():
    images, heldout = numbered(), numbered()
    parts = split_images(images.take(torch.arange(10)), heldout, seed=0)
    assert parts.dropped == 10
    values = parts.heldout.pixels[:, 0, 0, 0].long()
    assert torch.equal(parts.heldout.labels, (values % 6 > 0).long())
    assert images.subset(7).labels.shape == (7,)
