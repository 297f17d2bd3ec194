"""Tables by `datasets`: parquet, Arrow, WebDataset tars, the hub; with labels and captions."""

import io
import tarfile

import datasets
import huggingface_hub
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from picture_files import picture, save_table

from mmd_ddm.data.images import load_images

N = 6
NAMES = ("cat", "dog", "eel")


def rows(first=0, n=N, **columns):
    """Pictures of one shade each, with labels and captions, as the hub keeps them."""
    kinds = Features(image=Image(), label=ClassLabel(names=[*NAMES]), text=Value("string"))
    content = {
        "image": [{"bytes": picture(10 * (first + i)), "path": None} for i in range(n)],
        "label": [i % 3 for i in range(n)],
        "text": [f"shade {10 * (first + i)}" for i in range(n)],
    }
    return Dataset.from_dict({**content, **columns}, features=kinds)


def save_tar(path, contents):
    with tarfile.open(path, "w") as tar:
        for name, content in contents.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return path


def samples(without=""):
    files = {}
    for i in range(N):
        files[f"a/{i:03d}.png"] = picture(10 * i)
        files[f"a/{i:03d}.txt"] = f"shade {10 * i}".encode()
        files[f"a/{i:03d}.cls"] = str(i % 3).encode()
    return {name: content for name, content in files.items() if name != without}


def check(images, classes=NAMES):
    """Each picture's label and caption are its own."""
    shades = images.pixels[:, 0, 0, 0].tolist()
    assert shades == [10 * i for i in range(N)]
    assert images.labels.tolist() == [i % 3 for i in range(N)]
    assert images.classes == classes
    assert images.captions == tuple(f"shade {value}" for value in shades)
    some = images.take(images.labels == 1)
    assert some.captions == ("shade 10", "shade 40")


def save(kind, place):
    if kind == "parquet":
        rows().to_parquet(place / "set.parquet")
        return place / "set.parquet"
    if kind == "parts":
        (place / "set").mkdir()
        rows(0, 3).to_parquet(place / "set/train-00000-of-00002.parquet")
        rows(3, 3).to_parquet(place / "set/train-00001-of-00002.parquet")
        return place / "set"
    if kind == "save_to_disk":
        rows().save_to_disk(place / "set")
        (place / "set/cache-0123.arrow").write_bytes(b"what a map left behind")
        return place / "set"
    DatasetDict(train=rows(), test=rows(9, 2)).save_to_disk(place / "set")
    return f"{place}/set:train"


@pytest.mark.parametrize("kind", ["parquet", "parts", "save_to_disk", "two splits"])
def test_pictures_labels_and_captions_come_together(kind, tmp_path):
    source = save(kind, tmp_path)
    images = load_images(source, labels=True, captions=True)
    check(images)
    assert "columns image, label, text" in images.told[0]
    assert "3 classes of" in images.told[-2]
    assert images.told[-1].endswith("6 different captions of " + f"{source}, the first: shade 0")
    assert load_images(source).labels is None


def test_a_tar_of_webdataset(tmp_path):
    source = save_tar(tmp_path / "set-000.tar", samples())
    check(load_images(source, labels=True, captions=True), ("0", "1", "2"))
    assert len(load_images(source)) == N
    save_tar(tmp_path / "hole.tar", samples("a/005.txt"))
    with pytest.raises(ValueError, match=r"1 of the 6 pictures .* no caption \(.*tar:a/005\)"):
        load_images(tmp_path / "hole.tar", captions=True)
    save_tar(tmp_path / "bad.tar", {"a/000.png": b"junk", "a/000.cls": b"1"})
    with pytest.raises(ValueError, match=r"bad.tar:a/000 cannot be read: it is text"):
        load_images(tmp_path / "bad.tar")
    save_tar(tmp_path / "code.tar", {"a/000.png": picture(0), "a/000.pickle": b"cos\nsystem\n."})
    assert len(load_images(tmp_path / "code.tar")) == 1  # unread
    (tmp_path / "none.tar").write_bytes(b"junk" * 300)
    with pytest.raises(ValueError, match=r"none.tar cannot be read: it is text") as refused:
        load_images(tmp_path / "none.tar")
    assert "\n" not in str(refused.value)


def test_columns_are_chosen_by_name(tmp_path):
    path = save_table(tmp_path / "a.parquet", photo=[picture(1), picture(2)])
    assert load_images(f"{path}:label", labels=True).labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="holds no column 'label' of images"):
        load_images(f"{path}:label")
    with pytest.raises(ValueError, match="holds no captions: its columns are label, photo; name"):
        load_images(path, captions=True)
    kinds = Features(
        image=Image(), coarse=ClassLabel(names=["x"]), fine=ClassLabel(names=["p", "q"])
    )
    cells = [{"bytes": picture(i), "path": None} for i in range(2)]
    both = Dataset.from_dict({"image": cells, "coarse": [0, 0], "fine": [1, 0]}, features=kinds)
    both.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="holds no labels: its columns are image, coarse, fine"):
        load_images(tmp_path / "b.parquet", labels=True)
    assert load_images(f"{tmp_path}/b.parquet:fine", labels=True).classes == ("p", "q")


def test_holes_are_named(tmp_path):
    rows(label=[0, 1, -1, 0, None, 1]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"2 of the 6 pictures .* no label \(.*:2, .*:4\)"):
        load_images(tmp_path / "a.parquet", labels=True)
    rows(text=["a", "", None, "b", "c", " "]).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"3 of the 6 pictures .* no caption \(.*:1, .*:2, "):
        load_images(tmp_path / "b.parquet", captions=True)
    rows(label=[-1] * N).to_parquet(tmp_path / "c.parquet")
    with pytest.raises(ValueError, match=r"c.parquet holds no labels: put each picture"):
        load_images(tmp_path / "c.parquet", labels=True)


class TestHub:
    @pytest.fixture
    def hub(self, monkeypatch):
        """A set of one configuration and two splits, as the hub's client gives it."""
        asked = []

        def load_dataset(hub_id, *config, split, streaming):
            asked.append((hub_id, *config, split))
            return rows().to_iterable_dataset()

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        monkeypatch.setattr(datasets, "get_dataset_config_names", lambda hub_id: ["default"])
        splits = ["train", "test"]
        monkeypatch.setattr(datasets, "get_dataset_split_names", lambda hub_id, *config: splits)
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
        return asked

    def test_a_set_by_its_id(self, hub):
        for _ in range(2):
            check(load_images("hub:me/pets:train", labels=True, captions=True))
        assert hub == [("me/pets", "train")]  # and then from the cache
        with pytest.raises(ValueError, match=r"several splits .*: choose one, as hub:me/pets:tr"):
            load_images("hub:me/pets")

    def test_configurations_are_chosen_first(self, hub, monkeypatch):
        monkeypatch.setattr(datasets, "get_dataset_config_names", lambda hub_id: ["small", "big"])
        load_images("hub:me/pets:small:test")
        assert hub == [("me/pets", "small", "test")]

    def test_a_public_set_has_labels(self, hub, tmp_path, monkeypatch):
        monkeypatch.setenv("MMD_DDM_DATA", str(tmp_path))
        images = load_images("celeba", (3, 4, 4), labels=True, resize=True)
        assert (images.labels.tolist(), images.classes) == ([0, 1, 2] * 2, NAMES)


def test_the_network_is_not_asked_but_for_the_hub():
    with pytest.raises(ValueError, match=r"me/pets cannot be taken from the hub \(offline\? els"):
        load_images("hub:me/pets")
    with pytest.raises(ValueError, match="no data at me/pets"):
        load_images("me/pets")
