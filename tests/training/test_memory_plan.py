"""What fits: predicted bytes are those saved, the choice is the fastest, bad news is told."""

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch
from commands import mmd_ddm, save_place

from mmd_ddm.config import ChainConfig
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.jobs.build import build_sampler, load_model
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training import memory_plan as plan
from mmd_ddm.training.memory_count import _BLOCK
from mmd_ddm.training.memory_plan import Choice, Costs, Line, choices, choose, measure

TIMES = (700, 300, 0)
MB = 2**20
# A call costs 1 ms and 1 ms an image, its backward pass twice as much; extractors a tenth.
COSTS = Costs(
    5, 5, 64, trained=100 * MB, image=MB // 100, call=MB, extractor=MB // 2, work=2 * MB,
    forward=Line(1e-3, 1e-3), backward=Line(2e-3, 2e-3),
    extract=Line(1e-4, 1e-4), extract_backward=Line(1e-4, 1e-4),
)  # fmt: skip


def saved(sampler, n):
    """Bytes that autograd holds between forward and backward, every storage once."""
    sizes = {}

    def pack(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    z = torch.randn((sampler.draws, n, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    x_T = z[0].clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        images = sampler(x_T, z[1:] if sampler.stochastic else None)
    assert images.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize("name", ["ddim", "ddpm-small", "dpm-solver++-2m", "heun"])
@pytest.mark.parametrize("steps", [None, [1, 2]])
def test_predicted_bytes_are_those_that_are_saved(name, steps, denoiser):
    sampler = make_sampler(name, denoiser, TIMES)
    sampler.trained_steps = steps
    costs = measure(sampler, [Pixels(1)])
    assert costs.calls == (5 if name == "heun" else 3)
    assert costs.trained_calls == costs.calls - (2 if name == "heun" else 1) * bool(steps)
    sampler.recompute = True
    for sampler.keep in range(costs.trained_calls + 1):
        noise = (sampler.draws - 1) * 256  # held as well, though not by autograd
        image = costs.image - _BLOCK - noise + sampler.keep * costs.call
        assert saved(sampler, 6) - saved(sampler, 4) == pytest.approx(2 * image, rel=0.05)


def test_measuring_leaves_no_trace(denoiser):
    sampler = make_sampler("ddim", denoiser, TIMES, recompute=True)
    costs = measure(sampler, [Pixels(1)])
    assert sampler.recompute
    assert all(p.grad is None for p in denoiser.network.parameters())
    weights = sum(p.nbytes for p in denoiser.network.parameters())
    assert costs.trained == 6 * weights  # gradient, Adam's two, average, best, set aside
    assert min(costs.forward.each + costs.forward.fixed, costs.backward(1), costs.extract(1)) > 0


class Rows(Pixels):
    """Of another dimension."""

    def forward(self, images):
        return images.mean((1, 3))


class Slow(Pixels):
    """Takes 2 seconds and 3 an image of a clock that stands still otherwise, twice that back."""

    def __init__(self):
        super().__init__(1)
        self.now = 0.0

    def forward(self, images):
        self.now += 2 + 3 * len(images)
        features = super().forward(images)
        features.register_hook(lambda gradient: self.wait(len(images)))
        return features

    def wait(self, n):
        self.now += 4 + 6 * n


def test_seconds_are_those_of_the_processor_forward_and_back(denoiser, monkeypatch):
    slow = Slow()
    monkeypatch.setattr(time, "process_time", lambda: slow.now)
    costs = measure(make_sampler("ddim", denoiser, TIMES), [slow, Rows(1)])
    assert (costs.extract, costs.extract_backward) == (Line(2.0, 3.0), Line(4.0, 6.0))
    assert costs.forward == costs.backward == Line(0.0, 0.0)


def test_everything_is_kept_where_it_fits():
    assert choose(COSTS, 64, 2**40) == Choice(64, 5, recompute=False)
    # One byte less than that takes, and the features are recomputed.
    all_kept = COSTS.memory(64, Choice(64, 5, recompute=False))
    assert all_kept == 100 * MB + 64 * (MB // 100 + 5 * MB + MB // 2) + 64 * 2 * MB
    assert choose(COSTS, 64, all_kept) == Choice(64, 5, recompute=False)
    assert choose(COSTS, 64, all_kept - 1).keep == 5


def test_the_choice_is_the_fastest_of_all_that_fit():
    for n in (1, 7, 64, 500):
        for budget in (110 * MB, 150 * MB, 260 * MB, 500 * MB, 3000 * MB):
            chosen = choose(COSTS, n, budget)
            assert COSTS.memory(n, chosen) <= budget
            for micro_batch in plan.halves_of(min(n, 64)):
                for other in choices(COSTS, micro_batch):
                    fits = COSTS.memory(n, other) <= budget
                    assert not fits or COSTS.seconds(n, chosen) <= COSTS.seconds(n, other)


def test_of_choices_as_fast_the_largest_micro_batch_is_taken():
    """Where an image costs the same in any company."""
    each = Line(0.0, 1e-3)
    flat = replace(COSTS, forward=each, backward=each, extract=each, extract_backward=each)
    assert choose(flat, 64, 2**40).micro_batch == 64


def test_seconds_count_the_calls():
    """16 images in two parts, 2 of 5 calls kept: 8 forward, 5 backward, extractors twice."""
    one = 8 * 9e-3 + 5 * 18e-3 + 2 * 9e-4 + 9e-4
    assert COSTS.seconds(16, Choice(8, 2)) == pytest.approx(2 * one)


def test_a_wanted_micro_batch_is_halved_only_until_it_fits():
    assert choose(COSTS, 64, 2**40, micro_batch=24).micro_batch == 24
    assert choose(COSTS, 64, 130 * MB, micro_batch=24).micro_batch == 12
    # Though 12 with a call kept would fit as well, and be faster.
    assert COSTS.seconds(64, Choice(12, 1)) < COSTS.seconds(64, Choice(24, 0))
    assert choose(COSTS, 64, 190 * MB, micro_batch=24) == Choice(24, 0)
    assert choose(COSTS, 64, 2**40, micro_batch=24, recompute=False).recompute is False


def test_what_would_fit_is_said_and_fits():
    with pytest.raises(ValueError, match="even at micro_batch 1") as caught:
        choose(COSTS, 5000, 130 * MB)
    batch = int(str(caught.value).split("a batch_size of ")[1])
    assert choose(COSTS, batch, 130 * MB).micro_batch == 1
    with pytest.raises(ValueError, match="what would fit: a smaller network"):
        choose(COSTS, 2, 50 * MB)
    for recompute, least in ((True, Choice(1, 0)), (False, Choice(1, 5, recompute=False))):
        needs = f"needs {COSTS.memory(2, least) / 2**30:.3g} GiB even at micro_batch 1"
        with pytest.raises(ValueError, match=needs):
            choose(COSTS, 2, 50 * MB, recompute=recompute)
    with pytest.raises(ValueError, match=r"a batch_size of \d+ or recompute = true"):
        choose(COSTS, 64, 130 * MB, recompute=False)


def test_free_memory_is_shared_by_the_ranks_of_a_machine(monkeypatch):
    device = torch.device("cpu")
    alone = plan.free_memory(device)
    assert 0 < alone < 2**50
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert plan.free_memory(device) == pytest.approx(alone / 4, rel=0.2)


@pytest.mark.parametrize(("limit", "free"), [("1000", 600), ("9000", 2000), ("max", 2000)])
def test_free_memory_is_half_of_what_machine_and_container_leave(
    limit, free, tmp_path, monkeypatch
):
    leave(monkeypatch, 1000)
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("400\n")
    monkeypatch.setattr(plan, "Path", lambda _: tmp_path)
    assert plan.free_memory(torch.device("cpu")) == free // 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    save_place(folder, 40)
    return folder


WORDS = ("plan", "base", "--features", "pixels", "--steps", 3, "--batch-size", 10)


def test_the_verb_prints_the_choices(folder):
    done = mmd_ddm(folder, *WORDS)
    assert done.code == 0, done
    rows = [line.split()[0] for line in done.out.splitlines() if "GiB" in line and " s " in line]
    assert rows == ["10", "5", "3", "2", "1", "chosen:"]
    assert "chosen: micro-batch 10, all calls kept" in done.out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--device", "cuda:9"), "device 'cuda:9' is not available"),
        (("--set", "micro_batch=-1"), "micro_batch must be at least 0"),
        (("--sampler", "dimm"), "dimm"),
    ],
)
def test_bad_plans_are_refused_in_one_line(more, said, folder):
    done = mmd_ddm(folder, *WORDS, *more)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


def finetune(folder, out, *more):
    return mmd_ddm(
        folder, "finetune", "base", "--data", "digits.npy", "--out", out, "--steps", 3,
        "--features", "pixels", "--set", "judges=encoder:judge.safetensors", "--iterations", 2,
        "--set", "select.every=0", "--batch-size", 4, "--set", "judge_samples=4", *more,
    )  # fmt: skip


def leave(monkeypatch, budget):
    """Let the machine have so little memory that a run may take these bytes of it."""
    free = SimpleNamespace(available=2 * budget)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)


def test_a_run_that_cannot_fit_leaves_no_trace(folder, monkeypatch):
    leave(monkeypatch, 200_000)  # the weights have 180 thousand
    for done in (mmd_ddm(folder, *WORDS), finetune(folder, "none")):
        assert done.code == 2
        assert done.err.startswith("mmd-ddm: error: a batch of ")
        assert done.err.count("\n") == 1
    assert not (folder / "none").exists()


@pytest.mark.slow
def test_a_run_is_planned_and_a_resumed_one_keeps_its_micro_batch(folder, monkeypatch):
    denoiser = load_model(str(folder / "base")).denoiser
    costs = measure(build_sampler(ChainConfig(steps=3), denoiser), [Pixels(1)])
    leave(monkeypatch, costs.memory(4, Choice(2, 0)))
    done = finetune(folder, "run")
    assert done.code == 0, done
    assert "4 images an iteration do not fit at once: micro-batch " in done.out
    leave(monkeypatch, 2**33)
    assert finetune(folder, "run").code == 0
    lines = (folder / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    tight, ample = [e for e in map(json.loads, lines) if e["event"] == "plan"]
    assert tight["micro_batch"] == ample["micro_batch"] == 2
    assert tight["recompute"]
    assert not ample["recompute"]
