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

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from jaxtyping import Float
from torch import Tensor, nn

from mmd_ddm import ranks
from mmd_ddm.checkpoint import load_state, save_state
from mmd_ddm.config import FinetuneConfig, HeadConfig, PretrainConfig
from mmd_ddm.interrupts import held_signals
from mmd_ddm.launch import is_first

__all__ = ["TrainingState", "Update", "train"]

_BAD_STEPS = 3
_SMALLER = 0.1


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


class TrainingState:
    """All that is trained and kept; resumes from ``path`` if a state was saved there.

    Args:
        config: Adam's rate, the decay of the average, the clipping, how many states to keep.
        network: on its device; those of its weights that take a gradient are trained.
        path: file of the newest state.

    Attributes:
        step: iterations done.
        best: the lowest KID, its standard error and step (``lowest_at``); step and averaged
            weights of what is kept.
        first_kid: of the network as it was given; None if it was not judged.
        rate_scale: what rollbacks have made of the learning rate.
        stopped: why training ends before its last iteration; empty if it does not.

    Raises:
        ValueError: a state that cannot be read, or is of another network.
    """

    _PLAIN = ("step", "best", "first_kid", "rate_scale", "stopped")

    def __init__(
        self,
        config: FinetuneConfig | PretrainConfig | HeadConfig,
        network: nn.Module,
        path: Path,
    ) -> None:
        self.config = config
        self.network = network
        self.path = path
        fused = self._device.type in ("cpu", "cuda")
        self.trained = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(
            self.trained, config.lr, betas=(0.9, 0.999), eps=1e-8, fused=fused
        )
        self.ema = EMAModel(self.trained, decay=config.ema_decay, foreach=True)
        self.step = 0
        self.best: dict[str, Any] = {
            "kid": math.inf, "kid_se": 0.0, "lowest_at": 0, "step": 0, "weights": None,
        }  # fmt: skip
        self.first_kid: float | None = None
        self.rate_scale = 1.0
        self.stopped = ""
        self.bad_steps = 0  # in a row; no state is saved among them
        self._load()

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.step >= self.config.iterations or bool(self.stopped)

    def save(self) -> None:
        """Write everything that a resumed run needs."""
        if not is_first():
            return
        parts = {
            "network": self._trained_state(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
        }
        plain = {name: getattr(self, name) for name in self._PLAIN}
        save_state(self.path, {**parts, **plain}, self.config.keep)

    def _load(self) -> None:
        state = load_state(self.path, self._device)
        ranks.agree(
            None if state is None else state.get("step"),
            f"the ranks do not see the same {self.path}: the run folder must lie on a disk that "
            "all machines share",
        )
        if state is None:
            return
        try:
            if state["network"].keys() != self._trained_state().keys():
                raise ValueError("it holds other weights")
            self.network.load_state_dict(state["network"], strict=False)
            self.optimizer.load_state_dict(state["optimizer"])
            self.ema.load_state_dict(state["ema"])
            for name in self._PLAIN:
                setattr(self, name, state[name])
        except Exception as error:  # foreign content raises a dozen kinds
            raise ValueError(
                f"{self.path} is no training state of this network: {str(error).splitlines()[0]}"
            ) from error
        self.ema.to(self._device)

    def _trained_state(self) -> dict[str, Tensor]:
        """The network's state, without the weights that are not trained."""
        frozen = {name for name, p in self.network.named_parameters() if not p.requires_grad}
        return {k: v for k, v in self.network.state_dict().items() if k not in frozen}

    def differentiate(self, loss_of: Callable[[], Float[Tensor, ""]]) -> Float[Tensor, ""] | None:
        """The loss, with its gradient in the weights; None if a rank had not the memory for it."""
        self.optimizer.zero_grad()
        loss = None
        try:
            loss = loss_of()
            loss.backward()
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            loss = None
        if ranks.any_of(loss is None):
            return None
        ranks.sum_gradients(self.trained)
        return loss

    def update(self, loss: Float[Tensor, ""], rate: float) -> tuple[float, float]:
        """One step of Adam, or none if loss or gradient is not finite.

        Args:
            loss: whose gradient the weights hold.
            rate: the learning rate.

        Returns:
            The loss, and the gradient's norm before clipping.
        """
        limit = self.config.grad_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.trained, limit)
        # Where an iteration waits for a GPU, and nowhere else.
        value, grad_norm = torch.stack([loss.detach().float(), norm.float()]).tolist()
        if math.isfinite(grad_norm) and math.isfinite(value):
            for group in self.optimizer.param_groups:
                group["lr"] = rate * self.rate_scale
            self.optimizer.step()
            self.ema.step(self.trained)
            self.bad_steps = 0
        else:
            self.bad_steps += 1
        self.step += 1
        return value, grad_norm

    def roll_back(self) -> None:
        """Return to the last checkpoint, with a smaller learning rate.

        Raises:
            ValueError: that was tried before.
        """
        tried = self.rate_scale < 1
        self._load()
        if tried:
            raise ValueError(
                f"loss or gradient was not finite {_BAD_STEPS} times in a row, again at "
                f"{_SMALLER:g} of lr {self.config.lr:g}: lower lr in a new run; {self.path} holds "
                f"the last good state, of iteration {self.step}"
            )
        self.rate_scale = _SMALLER
        self.bad_steps = 0

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the network holds the averaged weights."""
        self.ema.store(self.trained)
        self.ema.copy_to(self.trained)
        try:
            yield
        finally:
            self.ema.restore(self.trained)

    def consider(self, kid: float, kid_se: float) -> bool:
        """Keep the averaged weights, unless their KID is above the lowest so far.

        By more than the standard error of the difference, that is: between equals the longer
        training wins, not the luckier draw.
        """
        better = kid <= self.best["kid"] + math.hypot(kid_se, self.best["kid_se"])
        if better:
            weights = [p.detach().clone() for p in self.ema.shadow_params]
            self.best |= {"step": self.step, "weights": weights}
        if kid < self.best["kid"]:
            self.best |= {"kid": kid, "kid_se": kid_se, "lowest_at": self.step}
        return better

    def finish(self) -> int:
        """Put the best weights into the network, or the last average if none was judged.

        Returns:
            The iteration that they are of.
        """
        if self.best["weights"] is None:
            self.ema.copy_to(self.trained)
            return self.step
        with torch.no_grad():
            for p, best in zip(self.trained, self.best["weights"], strict=True):
                p.copy_(best)
        return int(self.best["step"])


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
        if state._device.type == "cuda":
            torch.cuda.empty_cache()
        if shrink is None:
            raise ValueError("out of memory: give a smaller batch_size")
        message = f"iteration {state.step + 1} ran out of memory and is repeated with {shrink()}"
        on_event(event="fault", step=state.step + 1, message=message)
    return loss


def _out_of_memory(error: RuntimeError) -> bool:
    """GPUs have a type for it, CPUs a sentence."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _handle_fault(state: TrainingState, on_event: Callable[..., None]) -> None:
    step = state.step
    message = f"iteration {step} skipped: its loss or gradient is not finite"
    if state.bad_steps == _BAD_STEPS:
        state.roll_back()
        message += (
            f", the third in a row: back to iteration {state.step}, with lr times "
            f"{state.rate_scale:g}"
        )
    on_event(event="fault", step=step, message=message)
