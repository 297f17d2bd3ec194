"""What launchers say, what they leave out, and what is left over of them."""

import os
from unittest import mock

import pytest
from commands import mmd_ddm
from fuzzing import attempt, many
from hypothesis import given
from hypothesis import strategies as st

from mmd_ddm.runs.launch import (
    NAMES,
    check_launch,
    gpu,
    is_first,
    local_rank,
    local_world,
    rank,
    speaks,
    world,
)

SLURM = {
    "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "2", "SLURM_PROCID": "9", "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "12", "SLURM_STEP_TASKS_PER_NODE": "8,4",
    "SLURM_STEP_NODELIST": "gpu[07-09,12],login",
}  # fmt: skip
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}  # fmt: skip
MPICH = {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1"}
TORCHRUN = dict(zip(NAMES, ("1", "2", "1", "node", "29500"), strict=True))


def launched(environment):
    """Within, this is the whole environment."""
    return mock.patch.dict(os.environ, environment, clear=True)


def without(name):
    return {key: value for key, value in TORCHRUN.items() if key != name}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        dict.fromkeys(NAMES, ""),
        {"RANK": "0"},
        {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"},
        {"LOCAL_RANK": "3"},
        {"MASTER_PORT": "tcp://10.0.0.1:29500"},  # of a service in a cluster
        {**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        # A script of sbatch, which runs once, on the first machine.
        {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
    ],
    ids=str,
)
def test_one_process_is_alone_whatever_is_left_over(environment):
    with launched(environment):
        check_launch()
        assert (rank(), world(), gpu(), local_world(), is_first()) == (0, 1, 0, 1, True)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1"}, "RANK is 1, and WORLD_SIZE is not set; RANK"),
        ({**TORCHRUN, "RANK": "2"}, "RANK is 2, and WORLD_SIZE is 2; RANK"),
        ({"RANK": "-1"}, "RANK is '-1' and no number; RANK"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two' and no number; WORLD_SIZE"),
        ({"WORLD_SIZE": "0"}, "RANK is 0, and WORLD_SIZE is 0; RANK"),
        ({"WORLD_SIZE": "9" * 12}, f"WORLD_SIZE is '{'9' * 12}' and no number; WORLD_SIZE"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK is 'x' and no number; LOCAL_RANK"),
        (
            {"WORLD_SIZE": "2"},
            "WORLD_SIZE is 2, and RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not set; WORLD_SIZE",
        ),
        *(
            (without(name), f"WORLD_SIZE is 2, and {name} not set; WORLD_SIZE")
            for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        ),
    ],
    ids=str,
)  # fmt: skip
def test_half_a_launch_is_refused_in_one_line_by_every_rank(environment, message, tmp_path):
    names = {name: environment.get(name, "") for name in NAMES}
    with mock.patch.dict(os.environ, names):
        done = mmd_ddm(tmp_path, "pretrain", "--data", "x", "--out", "new")
        assert (done.code, done.out) == (2, "")
        said, _, error = done.err.partition("error: ")
        assert said in ("mmd-ddm: ", f"mmd-ddm: rank {environment.get('RANK')}: ")
        what, _, name = message.partition("; ")
        advice = f"start with torchrun, or unset {name} to work in one process"
        assert error == f"{what}; {advice}\n"
        assert list(tmp_path.iterdir()) == []
        for words in (["--version"], ["--help"], ["finetune", "--help"]):
            done = mmd_ddm(tmp_path, *words)
            assert (done.code, done.err) == (0, "")


def test_a_task_of_srun_is_one_of_several():
    with launched(SLURM):
        check_launch()
        assert (rank(), world(), gpu(), local_world(), is_first()) == (9, 12, 1, 8, False)
        assert os.environ["MASTER_ADDR"] == "gpu07"
        port = int(os.environ["MASTER_PORT"])
        assert 61440 <= port < 65536
    with launched({**SLURM, "SLURM_STEP_ID": "3", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}):
        check_launch()
        assert int(os.environ["MASTER_PORT"]) != port
        assert is_first()
    with launched({**SLURM, "SLURM_GPUS_PER_TASK": "1"}):
        check_launch()
        assert gpu() == 0  # of the one that it sees


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("node1", "node1"), ("a,b", "a"), ("r[1-2]n[3,5]x,b", "r1n3x"), ("cn[010,012]", "cn010")],
)
def test_the_first_machine_of_a_list(nodes, first):
    with launched({**SLURM, "SLURM_STEP_NODELIST": nodes}):
        check_launch()
        assert os.environ["MASTER_ADDR"] == first


def test_torchrun_within_srun_and_a_place_that_the_person_names_win():
    with launched({**SLURM, **TORCHRUN}):
        check_launch()
        assert {name: os.environ[name] for name in NAMES} == TORCHRUN
    with launched({**SLURM, "MASTER_ADDR": "other"}):
        check_launch()
        assert os.environ["MASTER_ADDR"] == "other"
        assert rank() == 9


def test_a_task_of_srun_without_its_machines_is_refused():
    with launched({**SLURM, "SLURM_STEP_NODELIST": ""}):
        with pytest.raises(ValueError, match="WORLD_SIZE is 12, and MASTER_ADDR not set"):
            check_launch()


@pytest.mark.parametrize("theirs", [OPEN_MPI, MPICH], ids=["Open MPI", "MPICH"])
def test_a_task_of_mpirun_is_one_of_several_or_refused(theirs):
    with launched(theirs):
        said = "WORLD_SIZE is 4, and MASTER_ADDR, MASTER_PORT not set; .* unset WORLD_SIZE and "
        with pytest.raises(ValueError, match=said + [*theirs][1]):
            check_launch()
    with launched({**theirs, [*theirs][1]: "x"}):
        with pytest.raises(ValueError, match=f"{[*theirs][1]} is 'x' and no number"):
            check_launch()
    with launched({**theirs, "MASTER_ADDR": "node", "MASTER_PORT": "29500"}):
        check_launch()
        assert (rank(), world(), local_rank(), is_first()) == (3, 4, 1, False)
    with launched({**theirs, **TORCHRUN}):
        check_launch()
        assert (rank(), world()) == (1, 2)
    with launched({**dict.fromkeys(theirs, "0"), [*theirs][1]: "1"}):
        check_launch()
        assert (rank(), world()) == (0, 1)


def test_a_port_that_there_is_not_is_refused():
    for port in ("65536", "-1", "http"):
        with launched({**TORCHRUN, "MASTER_PORT": port}):
            with pytest.raises(
                ValueError, match=f"MASTER_PORT is '{port}': a port is a number up to"
            ):
                check_launch()


# Whatever a launcher, a scheduler or a person leaves in the environment

EVERY = [*NAMES, "LOCAL_WORLD_SIZE", "SLURM_GPUS_PER_TASK", *SLURM, *OPEN_MPI, *MPICH]
VALUES = st.one_of(
    st.integers(-3, 5).map(str),
    st.sampled_from(
        ["", " ", "2 ", "0x2", "1e3", "1.0", "two", "node,[", "gpu[01-", "8(x2),4", "\u0663",
         "\u00b2", "9" * 12, "9" * 5000, "-" * 9, "None", "\n", "99999", "29500"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
)  # fmt: skip
SET = st.dictionaries(st.sampled_from(EVERY), VALUES, max_size=8)
WHOLE = st.sampled_from([{}, TORCHRUN, SLURM, OPEN_MPI, MPICH])


@many(300)
@given(whole=WHOLE, changes=SET)
def test_any_environment_is_taken_or_refused(whole, changes):
    with launched({**whole, **changes}):
        told = attempt(lambda: check_launch() is None, said=" ")
        assert 0 <= rank() or told is None
        assert min(world(), local_world()) >= 1
        assert min(local_rank(), gpu()) >= 0
        assert is_first() <= speaks()
        if told:
            assert rank() < world()
            assert world() == 1 or all(os.environ.get(name) for name in NAMES)


@many(60)
@given(whole=WHOLE, changes=SET)
def test_any_environment_is_no_traceback(whole, changes, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    with launched({"HOME": str(folder), **whole, **changes}):
        assert mmd_ddm(folder, "--version").code == 0
        done = mmd_ddm(folder, "cache")
    assert done.code in (0, 2)
    assert done.err.count("\n") <= 1
    assert "Traceback" not in done.err
