r"""Finetuning: by MMD, the paper's algorithm (Sec. III-B), or by another method in its place.

Each iteration of MMD draws a batch through the K-step chain with gradients, maps it by phi, and
lowers the unbiased MMD^2 to the features of the data (Eq. 7) by backpropagating through the whole
chain into the denoiser's weights.

The cross term runs over a *bank*, the features of the whole reference set, where the paper draws
as many fresh images as the batch holds: the same expectation, without the reals' share of the
noise. ``reference = "minibatch"`` takes the paper's way, on rows of the bank.

One model may serve several numbers of steps, its *budgets*: K is drawn in each iteration with
probability in proportion to K, since a longer chain suffers more from what the others change, and
the batch walks the chain of that K.

Other methods have other losses (`mmd_ddm.training.losses.registry`), and all else of this:
averages, selection, resuming, faults, ranks.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from mmd_ddm.config import FinetuneConfig, SelectConfig
from mmd_ddm.maths.projections import Projections
from mmd_ddm.maths.random import generator
from mmd_ddm.models.conditions import Condition
from mmd_ddm.runs import ranks
from mmd_ddm.runs.launch import world
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.learned import Trainable
from mmd_ddm.training.loop import Update, train
from mmd_ddm.training.losses.base import Cost, Loss, Source, draw_batch
from mmd_ddm.training.losses.mmd import MMD
from mmd_ddm.training.objective import Objective
from mmd_ddm.training.state import BESIDE, TrainingState
from mmd_ddm.training.vanished import vanished_words

__all__ = ["drawn_steps", "finetune", "guidance_at", "trained_steps", "walked_cost"]


def finetune(
    config: FinetuneConfig,
    sampler: Sampler,
    objectives: Sequence[Objective],
    checkpoint_path: Path,
    on_event: Callable[..., None],
    evaluate: Callable[[], Projections] | None = None,
    budgets: Sequence[Sampler] = (),
    labels: Int64[Tensor, " m"] | None = None,
    loss: Loss | None = None,
    conditions: Condition | None = None,
) -> int:
    """Finetune the sampler's denoiser in place; resumes from ``checkpoint_path`` if there.

    The weights that take a gradient are trained, of the network (see `mmd_ddm.models.lora`) and of
    the sampler itself (`mmd_ddm.samplers.learned`).

    Args:
        config: the settings.
        sampler: the chain, on its device.
        objectives: the spaces to match, on the same device.
        checkpoint_path: file of the training state.
        on_event: called with ``event="train", step=, loss=, grad_norm=, seconds=`` after each
            iteration, with ``event="eval", step=, kid=, kid_se=, kid_ci95=, best=`` after each
            evaluation, with ``event="stop", step=, message=`` when patience ends, with
            ``event="fault", step=, message=`` when something went wrong.
        evaluate: KID of the sampler as it stands, from the same noise every time; called every
            ``config.select.every`` iterations with the averaged weights in place.
        budgets: chains of the same denoiser, one of which is drawn an iteration; by default the
            one chain.
        labels: which condition each image to match has, of a conditional model: its class, or the
            number of its caption.
        loss: of any method, with what it learns from; by default MMD's, of ``objectives``,
            ``labels`` and ``conditions``.
        conditions: all of them by these numbers; by default they are classes.

    Returns:
        The iteration whose weights the network now holds.

    Raises:
        ValueError: a gradient that stays non-finite, or a state that cannot be read.
        KeyboardInterrupt: Ctrl-C or SIGTERM, once the state is saved.
    """
    # Dropout off: the chain that is trained is the chain that is sampled.
    sampler.denoiser.network.eval()
    sampler.denoiser.use_fast_layout()
    loss = loss or MMD(config, Source(objectives, labels, conditions=conditions))
    betas = (config.score.beta1 if config.method == "score" else 0.9, 0.999)
    state = TrainingState(
        config,
        _trained(sampler, loss),
        checkpoint_path,
        functools.partial(_rate_of, config),
        betas,
    )
    if state.stopped:
        on_event(event="stop", step=state.step, message=state.stopped)
    if evaluate is not None and state.first_kid is None:
        _evaluate(config.select, state, evaluate, on_event)
    micro_batch = config.micro_batch or -(-config.batch_size // world())
    blind = False  # which is said once
    chains = {len(one.times): one for one in budgets or [sampler]}

    def chain_at(step: int) -> Sampler:
        return chains[drawn_steps(config.seed, [*chains], step)]

    def loss_at(step: int) -> Tensor:
        chain = chain_at(step)
        chain.trained_steps = trained_steps(config, len(chain.times), step)
        chain.guidance = guidance_at(config, step)
        return loss(chain, step, micro_batch)

    def shrink() -> str:
        nonlocal micro_batch
        kept = _keep_half(config, [*chains.values()], micro_batch)
        micro_batch = -(-micro_batch // 2)
        return f"micro_batch {micro_batch}, {kept} network calls kept"

    def after(update: Update) -> None:
        nonlocal blind
        on_event(
            event="train",
            step=update.step,
            loss=update.loss,
            grad_norm=update.grad_norm,
            seconds=update.seconds,
        )
        chain = chain_at(update.step - 1)
        drawn = functools.partial(
            _first_drawn, config, chain, loss.source, update.step - 1, micro_batch
        )
        _check_decoder(update.loss, chain, drawn)
        if update.grad_norm == 0 and config.lr > 0 and config.method == "mmd" and not blind:
            blind = True
            words = vanished_words(chain, objectives, *drawn())
            message = f"iteration {update.step} moved nothing, {words}"
            on_event(event="fault", step=update.step, message=message)
        due = config.select.every > 0 and update.step % config.select.every == 0
        if evaluate is not None and (due or state.finished):
            _evaluate(config.select, state, evaluate, on_event)

    rate_at = functools.partial(_learning_rate, config)
    train(state, loss_at, rate_at, after, on_event, shrink)
    return state.finish()


def drawn_steps(seed: int, budgets: Sequence[int], step: int) -> int:
    """K of this iteration, named by (seed, step): one of the budgets, in proportion to K.

    Args:
        seed: of the run.
        budgets: the numbers of steps to draw from.
        step: the iteration.
    """
    draw = generator(seed, 0, step, "budget")
    shares = torch.tensor([*budgets], dtype=torch.float64)
    return budgets[int(torch.multinomial(shares, 1, generator=draw))]


def trained_steps(config: FinetuneConfig, steps: int, step: int) -> list[int] | None:
    """Which of the chain's steps take a gradient in this iteration; None is all.

    Args:
        config: its ``chain.backward``, and the seed of those drawn at random.
        steps: K.
        step: the iteration.
    """
    which, _, count = config.chain.backward.partition("-")
    if which == "all" or int(count) >= steps:
        return None
    if which == "last":
        return list(range(steps - int(count), steps))
    draw = generator(config.seed, 0, step, "backward")
    return sorted(torch.randperm(steps, generator=draw)[: int(count)].tolist())


@torch.enable_grad()
def walked_cost(config: FinetuneConfig, chain: Sampler) -> Cost:
    """The network calls of a chain on an image, counted on two; random steps are any.

    Args:
        config: its ``chain.backward``.
        chain: of any sampler; a step may take several calls.
    """
    chain.trained_steps = trained_steps(config, len(chain.times), 0)
    chain(*draw_batch(replace(config, batch_size=2), chain, Source(), 0))
    return Cost(chain.nfe - chain.trained_calls, chain.trained_calls)


def _first_drawn(
    config: FinetuneConfig, chain: Sampler, source: Source, step: int, n: int
) -> tuple[Tensor, Tensor | None, Condition | None]:
    """What the first n images of an iteration were drawn from, as `draw_batch` has it."""
    x_T, noise, condition = draw_batch(config, chain, source, step)
    return x_T[:n], None if noise is None else noise[:, :n], condition and condition[:n]


@torch.no_grad()
def _check_decoder(loss: float, chain: Sampler, drawn: Callable[[], Any]) -> None:
    """Whether it is the decoder that makes a loss no number: see `Denoiser.check_decoder`."""
    if not math.isfinite(loss):
        x_0 = chain(*drawn())
        if not bool(chain.denoiser.to_images(x_0).isfinite().all()):
            chain.denoiser.check_decoder(x_0)


def _trained(sampler: Sampler, loss: Loss) -> nn.Module:
    """What the state is of: the network, with the sampler's own numbers or with a second one."""
    if isinstance(sampler, Trainable):
        return sampler
    network = sampler.denoiser.network
    if loss.beside is None:
        return network
    return nn.ModuleDict({"student": network, BESIDE: loss.beside})


def _rate_of(config: FinetuneConfig, name: str) -> float:
    """Of a weight, in multiples of lr: a critic and the sampler's own numbers have their own."""
    if name.startswith(f"{BESIDE}."):
        return config.score.critic_rate
    return config.sampler_lr / (config.lr or math.inf) if name in Trainable.NUMBERS else 1.0


def _learning_rate(config: FinetuneConfig, step: int) -> float:
    """Constant, as in the paper, or a cosine from ``lr`` to 0; of several rounds, in each."""
    rounds = config.progressive.rounds if config.method == "progressive" else 1
    length = config.iterations // rounds
    scale = 0.5 * (1 + math.cos(math.pi * (step % length) / length)) if config.cosine else 1.0
    return config.lr * scale


def _keep_half(config: FinetuneConfig, samplers: Sequence[Sampler], micro_batch: int) -> int:
    """Half of the network calls that kept their activations still do; how many that is."""
    kept = max(one.keep if one.recompute else one.trained_calls for one in samplers)
    if micro_batch == 1 and not kept and all(one.recompute for one in samplers):
        raise ValueError(
            f"one image at a time needs more memory than {samplers[0].denoiser.device} has: give "
            f"a batch_size below {config.batch_size}, fewer features, or a smaller model"
        )
    for one in samplers:
        one.keep, one.recompute = kept // 2, True
    return kept // 2


def _evaluate(
    config: SelectConfig,
    state: TrainingState,
    evaluate: Callable[[], Projections],
    on_event: Callable[..., None],
) -> None:
    """Judge the averaged weights; stop if they went astray or get no better."""
    with state.averaged():
        found = ranks.first_says(evaluate())
    best, kid, kid_se = state.consider(found), found.value, found.se
    interval = [kid - 1.96 * kid_se, kid + 1.96 * kid_se]
    on_event(event="eval", step=state.step, kid=kid, kid_se=kid_se, kid_ci95=interval, best=best)
    if state.first_kid is None:
        state.first_kid = kid
    bound = config.diverged * max(state.first_kid, 0) + 5 * kid_se
    if config.diverged and not kid <= bound:  # so that NaN is beyond it as well
        state.stopped = (
            f"diverged at iteration {state.step}: KID {kid:.3g} is beyond {bound:.3g}; "
            f"iteration {state.best['step']} is kept; lower lr"
        )
        on_event(event="fault", step=state.step, message=state.stopped)
    elif _has_waited(config, state):
        state.stopped = (
            f"stopped at iteration {state.step}: the last {config.patience} evaluations "
            f"(select.patience) were no better than iteration {state.best['lowest_at']}; "
            f"iteration {state.best['step']} is kept"
        )
        on_event(event="stop", step=state.step, message=state.stopped)


def _has_waited(config: SelectConfig, state: TrainingState) -> bool:
    """Whether patience ends before the training does."""
    waited = state.step - state.best["lowest_at"]
    return 0 < config.patience * config.every <= waited and not state.finished


def guidance_at(config: FinetuneConfig, step: int) -> float:
    """That of this iteration: constant or, where it is baked, down to 1 over the first third."""
    if not config.condition.bake_guidance:
        return config.chain.guidance
    left = max(0.0, 1 - 3 * step / max(config.iterations, 1))
    return 1 + left * (config.chain.guidance - 1)
