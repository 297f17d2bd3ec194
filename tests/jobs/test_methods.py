"""Every method of finetuning, from the settings to the model: one loop, and what it promises."""

from contextlib import contextmanager

import pytest
import torch
from commands import JUDGE

import mmd_ddm as mmd
from mmd_ddm.config import FinetuneConfig
from mmd_ddm.jobs.build import build_sampler
from mmd_ddm.jobs.train import prepare, train
from mmd_ddm.runs.progress import silent
from mmd_ddm.settings import from_mapping

SMALL = {
    "model": "base", "data": "digits.npy", "chain": {"steps": 2, "spacing": "trailing"},
    "iterations": 4, "batch_size": 4, "save_every": 1, "micro_batch": 4, "ema_decay": 0.5,
    "select": {"every": 2, "samples": 4, "diverged": 0.0}, "judges": [JUDGE],
}  # fmt: skip
METHODS = {
    "endpoint": {"teacher": {"steps": 3}},
    "endpoint, local": {"method": "endpoint", "teacher": {"local": 1, "sampler": "ddim"}},
    "pairs": {"teacher": {"steps": 3, "pairs": 10}},
    "progressive": {"progressive": {"rounds": 2}},
    "consistency": {},
    "consistency, teacher": {
        "method": "consistency", "consistency": {"teacher": True},
        "chain": {"steps": 2, "sampler": "consistency", "spacing": "trailing"},
    },
    "score": {"score": {"updates": 1}},
    "reward": {"reward": {"of": "import:rewards:Dark"}},
    "reward, repeated": {
        "method": "reward", "reward": {"of": "import:rewards:Dark", "repeats": 2}
    },
}  # fmt: skip


class Stops:
    """Ends the training in its third iteration, once two are saved."""

    def say(self, text):
        pass

    @contextmanager
    def bar(self, title, total):
        def told(done=0, **_):
            if title == "finetuning" and done == 3:
                raise KeyboardInterrupt

        yield told


def config_of(name):
    return from_mapping(FinetuneConfig, {**SMALL, "method": name, **METHODS[name]})


def weights(out, name, progress=silent):
    train(config_of(name), out, progress)
    return mmd.load(str(out)).denoiser.network.state_dict()


def largest(one, other):
    return max(float((value - other[key]).abs().max()) for key, value in one.items())


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_run_is_the_uninterrupted_one(name, workplace):
    base = mmd.load("base").denoiser.network.state_dict()
    whole = weights(workplace / "whole", name)
    assert largest(whole, base) > 0
    with pytest.raises(KeyboardInterrupt):
        weights(workplace / "parts", name, Stops())
    assert largest(weights(workplace / "parts", name), whole) == 0


@pytest.mark.parametrize("name", METHODS)
def test_the_gradient_does_not_depend_on_the_micro_batch(name, workplace):
    """Nor on what is recomputed; of the iteration that trains the chain, in a game."""
    gradients = []
    with prepare(config_of(name), workplace / "run") as job:
        network = job.model.denoiser.network
        chain = build_sampler(job.chain, job.model.denoiser)
        for weights_beside in job.loss.beside.parameters() if job.loss.beside else ():
            weights_beside.data.mul_(1.1)  # of a critic that is the base, there is no gradient
        for size, chain.recompute in ((4, False), (1, False), (3, True)):
            network.zero_grad()
            job.loss(chain, 1, size).backward()
            gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    whole, *others = gradients
    assert whole.norm() > 0
    assert all((other - whole).norm() <= 1e-4 * whole.norm() for other in others)


def test_a_verdict_without_optimised_spaces(workplace):
    """And all that a run leaves behind."""
    result = mmd.finetune(
        "base", "digits.npy", mmd.Chain(2, spacing="trailing"), out="run", iterations=1,
        batch_size=4, judge_samples=6, compare_steps=[4], method="endpoint",
        select={"every": 0}, judges=[JUDGE],
    )  # fmt: skip
    assert result.verdict.label != "not judged"
    assert {about["role"] for about in result.record["spaces"].values()} == {
        "selection", "held-out",
    }  # fmt: skip
    assert "endpoint" in (workplace / "run/model/README.md").read_text(encoding="utf-8")
