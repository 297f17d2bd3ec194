"""What of a source is the data set is told by names, chosen by the person, or refused: never by
its place, and never in silence.
"""

import numpy as np
import pytest
from commands import Counting
from picture_files import picture, save_files, save_table, save_zip

from mmd_ddm.data.images import load_images, say_read


def values(images):
    """One of every picture, each of one colour."""
    return images.pixels[:, 0, 0, 0].tolist()


def files(first, n, folder=""):
    return {f"{folder}{i}.png": picture(first + i) for i in range(n)}


class TestColumns:
    def test_of_several_the_usual_name_is_taken_and_said(self, tmp_path):
        path = save_table(
            tmp_path / "a.parquet",
            conditioning_image=[picture(0), picture(1)],
            image=[picture(100), picture(101)],
        )
        images = load_images(path)
        assert values(images) == [100, 101]
        assert images.told == (f"read 2 images of {path}: column image of a.parquet",)

    @pytest.mark.parametrize("name", ["image", "IMG", "jpg", "png", "photo"])
    def test_the_only_one_is_taken_whatever_its_name(self, name, tmp_path):
        path = save_table(tmp_path / "a.parquet", **{name: [picture(7)]})
        assert values(load_images(path)) == [7]

    def test_of_several_unusual_ones_none_is_taken_unless_chosen(self, tmp_path):
        path = save_table(tmp_path / "a.parquet", mask=[picture(0)], photo=[picture(9)])
        with pytest.raises(
            ValueError, match=r"several columns of images, mask, photo: choose"
        ) as e:
            load_images(path)
        assert f"as {path}:mask" in str(e.value)
        assert values(load_images(f"{path}:photo")) == [9]
        assert values(load_images(f"{path}:mask")) == [0]

    @pytest.mark.parametrize("name", ["label", "images", ""])
    def test_what_is_not_there_cannot_be_chosen(self, name, tmp_path):
        path = save_table(tmp_path / "a.parquet", mask=[picture(0)], image=[picture(9)])
        with pytest.raises(ValueError, match=rf"no column '{name}' of images; there are mask, im"):
            load_images(f"{path}:{name}")

    def test_tables_of_one_set_have_one_column(self, tmp_path):
        save_table(tmp_path / "set/a.parquet", photo=[picture(1)])
        save_table(tmp_path / "set/b.parquet", mask=[picture(2)])
        with pytest.raises(ValueError, match=r"b.parquet holds no column photo of images"):
            load_images(tmp_path / "set")


class TestArrays:
    def images(self, value):
        return np.full((3, 4, 4), value, np.uint8)

    @pytest.mark.parametrize("name", ["images", "image", "arr_0"])
    def test_of_several_the_usual_name_is_taken_and_said(self, name, tmp_path):
        path = tmp_path / "a.NPZ"
        with path.open("wb") as file:
            np.savez(file, masks=self.images(0), **{name: self.images(9)})
        images = load_images(path)
        assert values(images) == [9, 9, 9]
        assert images.told == (f"read 3 images of {path}: array {name} of a.NPZ",)

    def test_labels_are_no_choice(self, tmp_path):
        labels = np.zeros(3, np.int64)
        np.savez(tmp_path / "a.npz", labels=labels, mu=np.zeros((3, 4)), data=self.images(5))
        assert values(load_images(tmp_path / "a.npz")) == [5, 5, 5]

    def test_of_several_unusual_ones_none_is_taken_unless_chosen(self, tmp_path):
        path = tmp_path / "mnist.npz"
        np.savez(path, x_test=self.images(1), x_train=self.images(2), y_test=np.zeros(3))
        with pytest.raises(ValueError, match=r"several arrays of images, x_test, x_train: choose"):
            load_images(path)
        assert values(load_images(f"{path}:x_train")) == [2, 2, 2]
        with pytest.raises(ValueError, match=r"no array 'x' of images; there are x_test, x_train"):
            load_images(f"{path}:x")
        with pytest.raises(ValueError, match=r"holds an array \[3\] of float64"):
            load_images(f"{path}:y_test")

    def test_none_is_named(self, tmp_path):
        np.savez(tmp_path / "a.npz", x=np.zeros(3), y=np.zeros(4))
        with pytest.raises(
            ValueError, match=r"a.npz holds no array of images; its arrays are x, y"
        ):
            load_images(tmp_path / "a.npz")


class TestFolders:
    def clone(self, folder):
        save_files(folder, {"README.md": b"#", **files(0, 5, "assets/")})
        return save_table(folder / "data/train-00000-of-00001.parquet", image=[picture(9)] * 3)

    def test_pictures_beside_tables_are_refused_with_the_choice(self, tmp_path):
        self.clone(tmp_path)
        said = r"5 pictures \(5 in assets\) and 1 table \(1 in data\): give the one that is meant"
        with pytest.raises(ValueError, match=said) as caught:
            load_images(tmp_path)
        assert f"of {tmp_path}/assets, {tmp_path}/data" in str(caught.value)
        assert values(load_images(tmp_path / "data")) == [9, 9, 9]
        assert len(load_images(tmp_path / "assets")) == 5

    def test_without_folders_of_their_own_they_are_to_be_taken_apart(self, tmp_path):
        save_table(tmp_path / "both/a.parquet", image=[picture(9)])
        save_files(tmp_path, files(0, 2, "both/"))
        with pytest.raises(ValueError, match=r"2 pictures .* 1 table .*take them apart, and give"):
            load_images(tmp_path)
        with pytest.raises(ValueError, match=rf"of {tmp_path}/both/a.parquet$"):
            load_images(tmp_path / "both")

    @pytest.mark.parametrize("with_pictures", [False, True])
    def test_tables_in_an_archive_are_not_passed_over(self, with_pictures, tmp_path):
        table = self.clone(tmp_path / "set").read_bytes()
        inside = {"data/a.parquet": table, **files(0, 2 * with_pictures, "assets/")}
        path = save_zip(tmp_path / "a.zip", inside)
        with pytest.raises(
            ValueError, match=r"1 table \(1 in data\): (unpack it|take them apart)"
        ):
            load_images(path)

    def test_parts_of_a_table_are_one_set(self, tmp_path):
        for i in range(3):
            name = f"data/train-0000{i}-of-00003.parquet"
            save_table(tmp_path / name, image=[picture(i)] * 2)
        images = load_images(tmp_path)
        assert values(images) == [0, 0, 1, 1, 2, 2]
        (told,) = images.told
        assert told.endswith("column image of 3 tables (3 in data), split train")

    def test_what_each_folder_gave_is_said(self, tmp_path):
        save_files(tmp_path, {**files(0, 2, "cats/"), **files(5, 3, "dogs/"), **files(9, 1)})
        (told,) = load_images(tmp_path).told
        assert told.endswith("6 pictures (1 in ., 2 in cats, 3 in dogs)")

    def test_a_name_with_a_colon_is_a_name(self, tmp_path):
        save_files(tmp_path / "a:b", files(3, 1))
        assert values(load_images(f"{tmp_path}/a:b")) == [3]


class TestSplits:
    @pytest.fixture(params=["folder", "zip", "tables", "tables in folders"])
    def source(self, request, tmp_path):
        """Two pictures to train on, one to test with."""
        if request.param.startswith("tables"):
            form = "{}/0000" if request.param.endswith("folders") else "data/{}-00000-of-00001"
            for name, pictures in {"train": [picture(1)] * 2, "test": [picture(2)]}.items():
                save_table(tmp_path / f"set/{form.format(name)}.parquet", image=pictures)
            return tmp_path / "set"
        inside = {"train/a.png": picture(1), "train/b.png": picture(1), "test/a.png": picture(2)}
        if request.param == "zip":
            return save_zip(tmp_path / "set.zip", inside)
        return save_files(tmp_path / "set", inside)

    def test_several_are_refused_unless_one_is_chosen(self, source):
        with pytest.raises(ValueError, match=r"several splits \(1 in test, [12] in train\)") as e:
            load_images(source)
        assert f"choose one, as {source}:test, or {source}:all" in str(e.value)
        assert values(load_images(f"{source}:train")) == [1, 1]
        assert load_images(f"{source}:train").told[0].endswith(", split train")
        assert values(load_images(f"{source}:test")) == [2]
        assert sorted(values(load_images(f"{source}:all"))) == [1, 1, 2]

    def test_one_that_is_not_there_is_refused(self, source):
        with pytest.raises(ValueError, match="several splits"):
            load_images(f"{source}:validation")

    def test_a_class_named_train_is_a_class(self, tmp_path):
        save_files(tmp_path, {**files(0, 2, "train/"), **files(5, 2, "bus/")})
        images = load_images(tmp_path)
        assert len(images) == 4
        assert "split" not in images.told[0]

    def test_pictures_have_nothing_else_to_choose(self, tmp_path):
        save_files(tmp_path / "set", files(0, 2))
        with pytest.raises(ValueError, match=r"set holds no 'image' that could be chosen"):
            load_images(f"{tmp_path}/set:image")

    def test_a_split_and_a_column_can_be_chosen(self, tmp_path):
        for i, split in enumerate(("train", "test")):
            save_table(tmp_path / f"{split}.parquet", mask=[picture(i)], photo=[picture(9 - i)])
        assert values(load_images(f"{tmp_path}:test:photo")) == [8]


RUN = {"run.json": b"{}", "grid.png": picture(0, (9, 9)), **files(50, 8, "0000")}


class TestRunsOfOurs:
    @pytest.mark.parametrize("kind", ["folder", "zip"])
    def test_samples_below_the_data_are_left_out_and_said(self, kind, tmp_path):
        inside = {**files(0, 24), **{f"samples/{k}": v for k, v in RUN.items()}}
        if kind == "zip":
            source = save_zip(tmp_path / "a.zip", inside)
        else:
            source = save_files(tmp_path / "a", inside)
        images = load_images(source)
        assert sorted(values(images)) == [*range(24)]
        said = f"left out 9 pictures of runs of mmd-ddm within {source}: samples/00000.png, "
        assert images.told[1].startswith(said)
        assert images.skipped == ()

    @pytest.mark.parametrize("place", ["", "inner/"])
    def test_a_run_that_is_all_there_is_is_the_data(self, place, tmp_path):
        save_files(tmp_path, {place + name: content for name, content in RUN.items()})
        images = load_images(tmp_path)
        assert values(images) == [*range(50, 58)]
        assert images.skipped == (f"{place}grid.png", f"{place}run.json")

    def test_several_runs_are_to_be_given_one_by_one(self, tmp_path):
        for place in ("one/", "two/"):
            save_files(tmp_path, {place + name: content for name, content in RUN.items()})
        with pytest.raises(
            ValueError, match=r"holds no images .*found 18 in runs of mmd-ddm, to be"
        ):
            load_images(tmp_path)


def test_what_was_read_is_said_of_every_source(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 4), np.uint8))
    progress = Counting()
    say_read(progress, load_images("fashion-mnist-heldout"), load_images(tmp_path / "a.npy"))
    assert progress.said == [
        "read 3,000 images of fashion-mnist-heldout: the array of heldout-images-idx3-ubyte.gz",
        f"read 3 images of {tmp_path}/a.npy: the array of a.npy",
    ]
