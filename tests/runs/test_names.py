"""Whether two settings mean the same: by the place that they name, or by its content."""

import pytest

from mmd_ddm.runs.folder import OutputError, RunLog, check_folder, free_folder


def begin(folder, settings, inputs=None):
    """Open the folder, as a run does, and close it."""
    with RunLog(folder, "finetune", settings, inputs):
        pass


@pytest.mark.parametrize(
    ("old", "new", "holds"),
    [
        ({"data": "d/x/"}, {"data": "d/x"}, True),
        ({"data": "a"}, {"data": "b"}, False),
        ({"model": ""}, {"model": "."}, False),
        ({"device": "auto"}, {"device": "cpu"}, True),
        ({"device": "cuda"}, {"device": "cuda:1"}, True),
        ({"device": "cuda"}, {"device": "cpu"}, False),
        ({"seed": 0}, {"seed": 0.0}, True),
        ({"data": "a"}, {"data": ["a"]}, False),
    ],
)
def test_without_a_hash_a_name_is_a_place(old, new, holds, tmp_path):
    begin(tmp_path, old)
    if holds:
        begin(tmp_path, new)
    else:
        with pytest.raises(OutputError, match=f"other settings .{next(iter(old))}: "):
            begin(tmp_path, new)


@pytest.mark.parametrize(
    ("old", "new", "holds"),
    [
        ("encoder:a", "encoder:./b", True),
        ("encoder:a+uint8", "encoder:b+uint8", True),
        ("encoder:a", "encoder:a+uint8", False),
        ("encoder:a", "inception:a", False),
        ("pixels", "random", False),
    ],
)
def test_with_a_hash_a_space_is_its_kind_and_content(old, new, holds, tmp_path):
    inputs = {"select.features_sha256": "aa"}
    settings = [{"select": {"features": each}} for each in (old, new)]
    begin(tmp_path, settings[0], inputs=inputs)
    if holds:
        begin(tmp_path, settings[1], inputs=inputs)
    else:
        with pytest.raises(OutputError, match=r"other settings .select\.features: "):
            check_folder(tmp_path, "finetune", settings[1])
    with pytest.raises(OutputError, match=r"other (data or weights|settings)"):
        begin(tmp_path, settings[1], inputs={"select.features_sha256": "bb"})


def test_beside_a_run_whose_content_is_not_known_yet_another_place_is_another_run(tmp_path):
    begin(tmp_path / "run", {"data": "a"}, {"data_sha256": "aa"})
    for name, taken in (("b", "run-2"), ("./a", "run")):
        found = free_folder(tmp_path / "run", "finetune", {"data": name})
        assert found == tmp_path / taken
