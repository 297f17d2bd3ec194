"""The whole training state: weights, Adam, their average, what was best; in and out of a file.

A state is written to a temporary name, synced and renamed, so that a crash leaves either the old
file or the new one. It is read with ``weights_only``: no pickled code is run.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from jaxtyping import Float
from torch import Tensor, nn

from mmd_ddm.config import FinetuneConfig, HeadConfig, PretrainConfig
from mmd_ddm.maths.projections import Projections
from mmd_ddm.runs import ranks
from mmd_ddm.runs.files import atomic_write
from mmd_ddm.runs.launch import is_first

__all__ = ["BAD_STEPS", "BESIDE", "TrainingState", "disk_bytes", "load_state", "save_state"]

BAD_STEPS = 3  # in a row, before the last checkpoint is loaded
BESIDE = "beside"  # the part of a network that is saved whole, trained or not
_SMALLER = 0.1


class TrainingState:
    """All that is trained and kept; resumes from ``path`` if a state was saved there.

    Args:
        config: Adam's rate, the decay of the average, the clipping, how many states to keep.
        network: on its device; those of its weights that take a gradient are trained.
        path: file of the newest state.
        rates: of a weight by its name, in multiples of the learning rate.
        betas: of Adam.

    Attributes:
        step: iterations done.
        best: the lowest KID, its projections (``parts``) and step (``lowest_at``); step and
            averaged weights of what is kept.
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
        rates: Callable[[str], float] = lambda name: 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self.config = config
        self.network = network
        self.path = path
        fused = self.device.type in ("cpu", "cuda")
        groups: dict[float, list[nn.Parameter]] = {}
        for name, p in network.named_parameters():
            if p.requires_grad:
                groups.setdefault(rates(name), []).append(p)
        self.trained = [p for group in groups.values() for p in group]
        self.optimizer = torch.optim.Adam(
            [{"params": group, "rate": rate} for rate, group in groups.items()],
            config.lr, betas=betas, eps=1e-8, fused=fused,
        )  # fmt: skip
        self.ema = EMAModel(self.trained, decay=config.ema_decay, foreach=True)
        self.step = 0
        self.best: dict[str, Any] = {
            "kid": math.inf, "parts": None, "lowest_at": 0, "step": 0, "weights": None,
        }  # fmt: skip
        self.first_kid: float | None = None
        self.rate_scale = 1.0
        self.stopped = ""
        self.bad_steps = 0  # in a row; no state is saved among them
        self._load()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
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
        state = load_state(self.path, self.device)
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
        self.ema.to(self.device)

    def _trained_state(self) -> dict[str, Tensor]:
        """The network's state, without the weights that are not trained, but for `BESIDE`."""
        frozen = {
            name
            for name, p in self.network.named_parameters()
            if not (p.requires_grad or name.startswith(f"{BESIDE}."))
        }
        return {k: v for k, v in self.network.state_dict().items() if k not in frozen}

    def differentiate(self, loss_of: Callable[[], Float[Tensor, ""]]) -> Float[Tensor, ""] | None:
        """The loss, with its gradient in the weights; None if a rank had not the memory for it."""
        self.optimizer.zero_grad()

        def differentiated() -> Float[Tensor, ""]:
            loss = loss_of()
            loss.backward()
            return loss

        try:
            loss = ranks.all_or_none(differentiated)
            ranks.sum_gradients(self.trained)
        except torch.OutOfMemoryError:
            return None
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
                group["lr"] = rate * self.rate_scale * group["rate"]
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
                f"loss or gradient was not finite {BAD_STEPS} times in a row, again at "
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

    def consider(self, kid: Projections) -> bool:
        """Keep the averaged weights, unless their KID is above the lowest so far.

        By more than the standard error of the paired difference, that is: between equals the
        longer training wins, not the luckier draw.
        """
        better = math.isfinite(kid.value)
        if self.best["parts"] is not None:
            above = kid - Projections(self.best["parts"])
            better = above.value <= above.se
        if better:
            weights = [p.detach().clone() for p in self.ema.shadow_params]
            self.best |= {"step": self.step, "weights": weights}
        if kid.value < self.best["kid"]:
            self.best |= {"kid": kid.value, "parts": dict(kid.parts), "lowest_at": self.step}
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


def disk_bytes(network: nn.Module, keep: int = 1, runs: int = 1) -> int:
    """What runs leave on the disk, with the one file more that is there while it is written.

    That is, of weights, two moments, average and best, ``keep`` checkpoints; and the model.
    """
    whole = sum(p.nbytes for p in network.parameters())
    trained = sum(p.nbytes for p in network.parameters() if p.requires_grad)
    return (whole + 5 * trained * keep) * runs + 5 * trained


def save_state(path: Path, state: Mapping[str, Any], keep: int = 1) -> None:
    """Write nested mappings of tensors and plain values.

    Args:
        path: of the newest state, ``checkpoint.pt``; older ones become ``checkpoint.1.pt``,
            ``checkpoint.2.pt`` ... once the new one is written.
        state: what to write.
        keep: how many to keep, the newest included.

    Raises:
        OSError: a full disk, a folder that cannot be written; what was there is still there.
    """
    with atomic_write(path) as file:
        try:
            torch.save(dict(state), file)
        except RuntimeError as error:  # what torch makes of a failed write
            raise OSError(f"cannot write {path}: {str(error).splitlines()[0]}") from error
        for age in reversed(range(keep - 1)):
            if _aged(path, age).exists():
                _aged(path, age).replace(_aged(path, age + 1))


def load_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Read the newest state that `save_state` wrote there; None if there is none.

    Raises:
        ValueError: the file is damaged or no such state.
    """
    older = sorted(path.parent.glob(f"{path.stem}.[0-9]*{path.suffix}"), key=_age)
    newest = next((file for file in (path, *older) if file.is_file()), None)
    if newest is None:
        return None
    try:
        return dict(torch.load(newest, map_location=device, weights_only=True))
    except Exception as error:  # torch raises many types, and advises to run what it refused
        raise ValueError(
            f"cannot resume from {newest}: it is damaged or no training state (pickled code is "
            "never run); remove it to go on from an older one or from the start"
        ) from error


def _aged(path: Path, age: int) -> Path:
    return path.with_name(f"{path.stem}.{age}{path.suffix}") if age else path


def _age(path: Path) -> int:
    return int(path.stem.rpartition(".")[2])
