"""The one training loop: Adam, averaged weights, checkpoints, and what is done about faults.

An iteration is named by its number alone: ``loss_at(step)`` draws whatever it needs from (seed,
step). So a run that is resumed, or rolled back, repeats what it would have done.

- An iteration whose loss or gradient is not finite changes nothing and is told.
- After three in a row the last checkpoint is loaded and the learning rate is a tenth from there;
  at three more the run ends. A checkpoint is never written among them, so that the last one
  is good.
- Where memory runs out the same iteration is done again, with the same noise, in smaller parts.
- Ctrl-C and SIGTERM wait for the end of the iteration, and the state is saved.
- Of several ranks all hold the same weights, which the sum of their gradients moves alike; the
  first one saves them, and all resume from the file it wrote.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.runs import ranks
from mmd_ddm.runs.signals import held_signals
from mmd_ddm.training.state import BAD_STEPS, TrainingState

__all__ = ["Update", "train"]


@dataclass(frozen=True)
class Update:
    """What one iteration did.

    Attributes:
        step: how many iterations are done.
        loss: of the batch.
        grad_norm: before clipping.
        seconds: that it took.
    """

    step: int
    loss: float
    grad_norm: float
    seconds: float


def train(
    state: TrainingState,
    loss_at: Callable[[int], Float[Tensor, ""]],
    rate_at: Callable[[int], float],
    after: Callable[[Update], bool | None],
    on_event: Callable[..., None],
    shrink: Callable[[], str] | None = None,
) -> bool:
    """Train until the last iteration, or until the state is stopped.

    Args:
        state: to go on from.
        loss_at: the loss of iteration ``step``, which depends on nothing else.
        rate_at: the learning rate of iteration ``step``.
        after: told of every iteration before the state is saved, so that what it does to the
            state is saved with it; True saves and pauses.
        on_event: called with ``event="fault", step=, message=`` when an iteration is skipped or
            the run is rolled back, or memory ran out.
        shrink: makes the next try need less memory and says how, or raises `ValueError`.

    Returns:
        Whether nothing is left to train.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM, once the state is saved.
        ValueError: a loss or gradient that stays non-finite, too little memory.
    """
    if state.step == 0:
        state.save()  # a way back, and a full disk is found at once
    with held_signals() as interrupted:
        while not state.finished:
            began = time.monotonic()
            loss = _differentiate(state, loss_at, shrink, on_event)
            value, grad_norm = state.update(loss, rate_at(state.step))
            seconds = time.monotonic() - began
            paused = after(Update(state.step, value, grad_norm, seconds))
            if state.bad_steps:
                _handle_fault(state, on_event)
            stopping = ranks.any_of(interrupted())
            due = state.step % state.config.save_every == 0 or paused or stopping
            if state.finished or (due and not state.bad_steps):
                state.save()
            if stopping and not state.finished:
                raise KeyboardInterrupt
            if paused:
                break
    return state.finished


def _differentiate(
    state: TrainingState,
    loss_at: Callable[[int], Float[Tensor, ""]],
    shrink: Callable[[], str] | None,
    on_event: Callable[..., None],
) -> Float[Tensor, ""]:
    """The loss of this iteration and its gradient, in parts as small as memory asks for."""
    while (loss := state.differentiate(lambda: loss_at(state.step))) is None:
        if state.device.type == "cuda":
            torch.cuda.empty_cache()
        if shrink is None:
            raise ValueError("out of memory: give a smaller batch_size")
        message = f"iteration {state.step + 1} ran out of memory and is repeated with {shrink()}"
        on_event(event="fault", step=state.step + 1, message=message)
    return loss


def _handle_fault(state: TrainingState, on_event: Callable[..., None]) -> None:
    step = state.step
    message = f"iteration {step} skipped: its loss or gradient is not finite"
    if state.bad_steps == BAD_STEPS:
        state.roll_back()
        message += (
            f", the third in a row: back to iteration {state.step}, with lr times "
            f"{state.rate_scale:g}"
        )
    on_event(event="fault", step=step, message=message)
