r"""MMD finetuning: the paper's algorithm (Sec. III-B).

Each iteration draws a batch through the K-step chain with gradients, maps it by phi, and lowers
the unbiased MMD^2 to the features of the data (Eq. 7) by backpropagating through the whole chain
into the denoiser's weights.

The cross term runs over a *bank*, the features of the whole reference set, where the paper draws
as many fresh images as the batch holds: the same expectation, without the reals' share of the
noise. ``reference = "minibatch"`` takes the paper's way, on rows of the bank.

One model may serve several numbers of steps, its *budgets*: K is drawn in each iteration with
probability in proportion to 1 / K, so that each K gets its share of the network calls, and the
batch walks the chain of that K.
"""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from mmd_ddm.config import ConditionConfig, FinetuneConfig, SelectConfig
from mmd_ddm.data.images import batch
from mmd_ddm.maths.pixels import clamp_hard, clamp_straight_through
from mmd_ddm.maths.projections import Projections
from mmd_ddm.maths.random import generator
from mmd_ddm.models.conditions import Condition
from mmd_ddm.runs import ranks
from mmd_ddm.runs.launch import world
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.learned import Trainable
from mmd_ddm.training.loop import Update, train
from mmd_ddm.training.losses.mmd import mmd_step
from mmd_ddm.training.objective import Objective
from mmd_ddm.training.state import TrainingState
from mmd_ddm.training.vanished import vanished_words

__all__ = ["drawn_labels", "drawn_steps", "finetune", "guidance_at", "trained_steps"]


def finetune(
    config: FinetuneConfig,
    sampler: Sampler,
    objectives: Sequence[Objective],
    checkpoint_path: Path,
    on_event: Callable[..., None],
    evaluate: Callable[[], Projections] | None = None,
    budgets: Sequence[Sampler] = (),
    labels: Int64[Tensor, " m"] | None = None,
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
        conditions: all of them by these numbers; by default they are classes.

    Returns:
        The iteration whose weights the network now holds.

    Raises:
        ValueError: a gradient that stays non-finite, or a state that cannot be read.
        KeyboardInterrupt: Ctrl-C or SIGTERM, once the state is saved.
    """
    # Dropout off: the chain that is trained is the chain that is sampled.
    network = sampler.denoiser.network.eval()
    sampler.denoiser.use_fast_layout()
    trained = sampler if isinstance(sampler, Trainable) else network
    state = TrainingState(config, trained, checkpoint_path, functools.partial(_rate_of, config))
    if state.stopped:
        on_event(event="stop", step=state.step, message=state.stopped)
    if evaluate is not None and state.first_kid is None:
        _evaluate(config.select, state, evaluate, on_event)
    micro_batch = config.micro_batch or -(-config.batch_size // world())
    blind = False  # which is said once
    clamp = clamp_hard if config.objective.clamp == "hard" else clamp_straight_through
    chains = {len(one.times): one for one in budgets or [sampler]}

    def chain_at(step: int) -> Sampler:
        return chains[drawn_steps(config.seed, [*chains], step)]

    def loss_at(step: int) -> Tensor:
        sampler = chain_at(step)
        x_T, noise, condition = _draw(config, sampler, labels, conditions, step)
        sampler.trained_steps = trained_steps(config, len(sampler.times), step)
        sampler.guidance = guidance_at(config, step)
        return mmd_step(
            sampler, objectives, x_T, noise, condition,
            rows=_reference_rows(config, len(objectives[0].bank), step),
            micro_batch=micro_batch, clamp=clamp,
        )  # fmt: skip

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
        if update.grad_norm == 0 and config.lr > 0 and not blind:
            blind = True
            sampler = chain_at(update.step - 1)
            x_T, noise, condition = _draw(config, sampler, labels, conditions, update.step - 1)
            some = None if noise is None else noise[:, :micro_batch]
            of_some = condition and condition[:micro_batch]
            words = vanished_words(sampler, objectives, x_T[:micro_batch], some, of_some)
            message = f"iteration {update.step} moved nothing, {words}"
            on_event(event="fault", step=update.step, message=message)
        due = config.select.every > 0 and update.step % config.select.every == 0
        if evaluate is not None and (due or state.finished):
            _evaluate(config.select, state, evaluate, on_event)

    rate_at = functools.partial(_learning_rate, config)
    train(state, loss_at, rate_at, after, on_event, shrink)
    return state.finish()


def drawn_steps(seed: int, budgets: Sequence[int], step: int) -> int:
    """K of this iteration, named by (seed, step): one of the budgets, in proportion to 1 / K.

    Args:
        seed: of the run.
        budgets: the numbers of steps to draw from.
        step: the iteration.
    """
    draw = generator(seed, 0, step, "budget")
    shares = 1 / torch.tensor([*budgets], dtype=torch.float64)
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


def _rate_of(config: FinetuneConfig, name: str) -> float:
    """Of a weight, in multiples of lr: the sampler's own numbers have a rate of their own."""
    return config.sampler_lr / (config.lr or math.inf) if name in Trainable.NUMBERS else 1.0


def _learning_rate(config: FinetuneConfig, step: int) -> float:
    """Constant, as in the paper, or a cosine from ``lr`` to 0."""
    scale = 0.5 * (1 + math.cos(math.pi * step / config.iterations)) if config.cosine else 1.0
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


def _draw(
    config: FinetuneConfig,
    sampler: Sampler,
    labels: Tensor | None,
    conditions: Condition | None,
    step: int,
) -> tuple[Tensor, Tensor | None, Condition | None]:
    """x_T, for stochastic samplers the noise of every step, and conditions: of (seed, step)."""
    denoiser = sampler.denoiser
    draw = generator(config.seed, 0, step, "finetune", denoiser.device)
    shape = (sampler.draws, config.batch_size, *denoiser.shape)
    z = torch.randn(shape, generator=draw, device=denoiser.device)
    condition = None
    if labels is not None:
        found = drawn_labels(config.condition, labels, config.batch_size, config.seed, step)
        condition = conditions[found] if conditions else Condition.of_labels(found)
        condition = condition.to(denoiser.device)
    return z[0], z[1:] if sampler.stochastic else None, condition


def guidance_at(config: FinetuneConfig, step: int) -> float:
    """That of this iteration: constant or, where it is baked, down to 1 over the first third."""
    if not config.condition.bake_guidance:
        return config.chain.guidance
    left = max(0.0, 1 - 3 * step / max(config.iterations, 1))
    return 1 + left * (config.chain.guidance - 1)


def drawn_labels(
    config: ConditionConfig, labels: Int64[Tensor, " m"], n: int, seed: int, step: int
) -> Int64[Tensor, " n"]:
    """The classes that a batch is drawn under, named by (seed, step).

    Where classes are matched, they are drawn with equal chance, as many as give each of them
    ``config.each`` images, in turns; otherwise each image takes the class of an image to match.

    Args:
        config: whether classes are matched.
        labels: of the images to match.
        n: images of the batch.
        seed: of the run.
        step: the iteration.

    Raises:
        ValueError: a batch too small for two classes, where their pairs count.
    """
    draw = generator(seed, 0, step, "classes")
    if config.match == "ignore":
        return labels[torch.randint(len(labels), (n,), generator=draw)]
    classes, most = labels.unique(), max(n // config.each, 1)
    if config.match == "joint" and most == 1 < len(classes):
        raise ValueError(
            f"batch_size = {n} holds one class of condition.each = {config.each} images, and the "
            f"joint MMD is of two at least: set batch_size to {2 * config.each}, or more"
        )
    some = classes[torch.randperm(len(classes), generator=draw)[:most]]
    found: Tensor = some[torch.arange(n) % len(some)]
    return found


def _reference_rows(config: FinetuneConfig, size: int, step: int) -> Tensor | None:
    if config.objective.reference == "minibatch":
        return batch(size, config.batch_size, config.seed, step)
    return None
