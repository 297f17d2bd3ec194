"""Classes through an iteration: drawn, told to the network, sliced with the noise, and matched."""

from dataclasses import replace

import pytest
import torch

from mmd_ddm.config import ChainConfig, ConditionConfig, FinetuneConfig
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.maths.joint_mmd import LabelKernel, joint_constant, joint_mmd2
from mmd_ddm.maths.kernels import Polynomial
from mmd_ddm.maths.mmd import mmd2
from mmd_ddm.maths.pixels import clamp_straight_through
from mmd_ddm.maths.random import generator
from mmd_ddm.models.conditions import Condition
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.finetune import finetune, guidance_at
from mmd_ddm.training.losses.base import drawn_labels
from mmd_ddm.training.losses.mmd import mmd_step
from mmd_ddm.training.objective import Objective

TIMES = (700, 300, 0)
LABELS = torch.tensor([0, 2, 1, 1, 2, 0, 1])
N = len(LABELS)


@pytest.fixture
def classes(tiny_unet, schedule):
    """Grey 8 x 8 images of 3 classes, and label 3 for none."""
    found = UNet2D(tiny_unet(num_class_embeds=4), schedule, shape=(1, 8, 8))
    found.classes, found.null_label = ("a", "b", "c"), 3
    return found


def x_T(n=N, seed=0):
    return torch.randn((n, 1, 8, 8), generator=torch.Generator().manual_seed(seed))


def objective(mix=None):
    draw = torch.Generator().manual_seed(7)
    real = torch.rand((12, 1, 8, 8), generator=draw) * 2 - 1
    labels = None if mix is None else torch.arange(12) % 3
    return Objective.over(Pixels(1), Pixels(1)(real), Polynomial(), labels=labels, mix=mix or 0)


def gradient(sampler, condition, mix, **options):
    network = sampler.denoiser.network
    network.zero_grad()
    loss = mmd_step(sampler, [objective(mix)], x_T(), None, condition, **options)
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in network.parameters()])


def test_the_network_is_told_each_images_class(classes):
    sampler = make_sampler("ddim", classes, TIMES)
    with torch.no_grad():
        drawn = sampler(x_T(), None, Condition.of_labels(LABELS))
        for i in (0, 1, 2):
            alone = sampler(x_T()[i : i + 1], None, Condition.of_labels(LABELS[i : i + 1]))
            torch.testing.assert_close(drawn[i : i + 1], alone, rtol=1e-5, atol=1e-5)
        order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
        moved = sampler(x_T()[order], None, Condition.of_labels(LABELS)[order])
        others = sampler(x_T(), None, Condition.of_labels((LABELS + 1) % 3))
    torch.testing.assert_close(moved, drawn[order], rtol=1e-5, atol=1e-5)
    assert ((others - drawn).abs().amax((1, 2, 3)) > 1e-3).all()


@pytest.mark.parametrize("mix", [None, 0.4])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_micro_batches_and_recomputation_keep_noise_and_class_together(classes, mix, guidance):
    sampler, condition = make_sampler("ddim", classes, TIMES), Condition.of_labels(LABELS)
    sampler.guidance = guidance
    loss, whole = gradient(sampler, condition, mix)
    sampler.recompute = True
    for micro_batch in (1, 3):
        part_loss, parts = gradient(sampler, condition, mix, micro_batch=micro_batch)
        assert float((parts - whole).norm() / whole.norm()) < 1e-5
        assert float(part_loss) == pytest.approx(float(loss), rel=1e-5)


def test_the_loss_is_the_joint_mmd_or_the_marginal(classes):
    sampler, condition = make_sampler("ddim", classes, TIMES), Condition.of_labels(LABELS)
    with torch.no_grad():
        images = clamp_straight_through(sampler(x_T(), None, condition))
        for mix in (None, 0.0, 0.4, 1.0):
            one = objective(mix)
            found = mmd_step(sampler, [one], x_T(), None, condition)
            phi = one.features(images)
            if mix is None:
                expected = mmd2(phi, one.bank, one.kernel)
            else:
                k_c = LabelKernel.of(one.labels, mix)
                c = joint_constant(one.bank, one.labels, one.kernel, k_c)
                expected = joint_mmd2(
                    phi, LABELS, one.bank, one.labels, one.kernel, k_c, constant=c
                )
            assert float(found) == pytest.approx(float(expected), rel=1e-4)


def test_a_step_with_guidance_is_two_calls_and_the_formula(classes):
    sampler, condition = make_sampler("ddim", classes, (500,)), Condition.of_labels(LABELS)
    sampler.guidance = 3.0
    with torch.no_grad():
        drawn = sampler(x_T(), None, condition)
        c = classes.eps(x_T(), 500, condition)
        u = classes.eps(x_T(), 500, Condition.of_labels(torch.full((N,), 3)))
        alpha_t, sigma_t = classes.schedule(500)
    expected = (x_T() - sigma_t * (u + 3 * (c - u))) / alpha_t
    torch.testing.assert_close(drawn, expected, rtol=1e-4, atol=1e-4)
    assert sampler.nfe == 2
    for name in ("heun", "dpm-solver++-2m", "unipc"):
        guided = make_sampler(name, classes, TIMES)
        with torch.no_grad():
            guided(x_T(), None, condition)
            calls, guided.guidance = guided.nfe, 2.0
            guided(x_T(), None, condition)
        assert guided.nfe == 2 * calls


def test_without_a_label_that_means_none_guidance_is_refused(classes, denoiser):
    classes.null_label = None
    for one, condition in ((classes, Condition.of_labels(LABELS)), (denoiser, None)):
        sampler = make_sampler("ddim", one, TIMES)
        sampler.guidance = 2.0
        with pytest.raises(ValueError, match="a label that means no class"):
            sampler(x_T(), None, condition)


@pytest.mark.parametrize(("name", "kind"), [("genie", "GENIE"), ("analytic-ddim", "AnalyticDDIM")])
def test_samplers_that_do_not_know_classes_refuse_them(classes, name, kind):
    with pytest.raises(ValueError, match=f"{kind} does not know classes"):
        make_sampler(name, classes, TIMES)


def test_classes_are_drawn_in_groups_named_by_seed_and_step():
    labels = torch.tensor([5, 1, 1, 7, 5, 1, 7, 7, 2, 2])
    config = ConditionConfig(each=4)
    few = [drawn_labels(config, labels, 10, 0, step) for step in range(40)]
    assert all(len(one.unique()) == 2 and one.bincount().max() == 5 for one in few)
    shares = torch.cat([one.unique() for one in few]).bincount()[[1, 2, 5, 7]] / 80
    assert (shares - 0.25).abs().max() < 0.12
    assert torch.equal(few[3], drawn_labels(config, labels, 10, 0, 3))
    assert not torch.equal(few[3], drawn_labels(config, labels, 10, 1, 3))
    every = drawn_labels(config, labels, 18, 0, 0)
    assert sorted(every.bincount()[[1, 2, 5, 7]].tolist()) == [4, 4, 5, 5]


def test_a_batch_of_one_class_is_refused_where_two_are_needed():
    with pytest.raises(ValueError, match=r"batch_size = 7 holds one class .* set batch_size to 8"):
        drawn_labels(ConditionConfig(), LABELS, 7, 0, 0)
    assert len(drawn_labels(ConditionConfig(match="class"), LABELS, 7, 0, 0).unique()) == 1
    assert len(drawn_labels(ConditionConfig(), LABELS * 0, 7, 0, 0)) == 7


def test_where_classes_are_not_matched_they_are_those_of_the_images():
    labels = torch.tensor([0] * 30 + [1] * 10)
    drawn = drawn_labels(ConditionConfig(match="ignore"), labels, 4000, 0, 0)
    assert drawn.float().mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("match", ["joint", "class", "ignore"])
def test_finetuning_draws_noise_and_classes_by_seed_and_step(classes, match, tmp_path):
    config = FinetuneConfig(
        iterations=3, batch_size=8, micro_batch=5, lr=0, ema_decay=0,
        condition=ConditionConfig(match=match),
    )  # fmt: skip
    labels, losses = torch.arange(12) % 3, []
    sampler, of = make_sampler("ddim", classes, TIMES), objective(config.condition.class_share)
    finetune(
        config, sampler, [of], tmp_path / "state.pt",
        lambda **event: losses.append(event["loss"]), labels=labels,
    )  # fmt: skip
    expected = []
    for step in range(3):
        z = torch.randn((8, 1, 8, 8), generator=generator(0, 0, step, "finetune"))
        condition = Condition.of_labels(drawn_labels(config.condition, labels, 8, 0, step))
        expected.append(float(mmd_step(sampler, [of], z, None, condition).detach()))
    assert losses == pytest.approx(expected, rel=1e-4)


def test_guidance_that_is_baked_falls_to_one_over_a_third():
    config = FinetuneConfig(chain=ChainConfig(guidance=4.0), iterations=30)
    assert [guidance_at(config, step) for step in (0, 29)] == [4.0, 4.0]
    baked = replace(config, condition=ConditionConfig(bake_guidance=True))
    found = [guidance_at(baked, step) for step in (0, 5, 10, 29)]
    assert found == pytest.approx([4.0, 2.5, 1.0, 1.0])
    assert (config.trained_guidance, baked.trained_guidance) == (4.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"match": "marginal"}, "joint, class or ignore; got 'marginal'"),
        ({"mix": 1.5}, "condition.mix must be at most 1; got 1.5"),
        ({"each": 1}, "condition.each must be at least 2; got 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ConditionConfig(**settings)


def test_landmarks_have_no_classes():
    with pytest.raises(ValueError, match=r"objective\.landmarks have no classes"):
        Objective.over(
            Pixels(1), torch.rand(6, 147), Polynomial(), landmarks=3, labels=torch.arange(6) % 2
        )
