"""Settings of every verb: frozen dataclasses, each field with one comment, which is its help.

`mmd_ddm.settings` fills them from TOML and the command line. No torch here.
"""

import re
from dataclasses import dataclass, field, replace

from mmd_ddm.methods import (
    ConsistencyConfig,
    ProgressiveConfig,
    RewardConfig,
    ScoreConfig,
    TeacherConfig,
    check_method,
)
from mmd_ddm.settings import at_least as _at_least

__all__ = [
    "ChainConfig", "ConditionConfig", "ConsistencyConfig", "FinetuneConfig", "HeadConfig",
    "NetworkConfig", "ObjectiveConfig", "PretrainConfig", "ProgressiveConfig", "ReadConfig",
    "RewardConfig", "ScoreConfig", "SelectConfig", "TeacherConfig", "check_seed",
]  # fmt: skip

_WEIGHTS = ("all", "no-convolutions", "lora", "")
_NUMBERS = ("", "times", "coefficients", "sampler", "ggdm", "ggdm+times")
_TRAINED = {f"{w}{'+' * bool(w and n)}{n}": (w, n) for w in _WEIGHTS for n in _NUMBERS}


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How images are read: what is done instead of refusing."""

    resize: bool = False  # crop and scale images that have another size than the model's
    background: str = ""  # laid under transparent pictures: white, black or #rrggbb
    skip_damaged: bool = False  # leave out pictures that cannot be read, and say how many

    def __post_init__(self) -> None:
        if not re.fullmatch("|white|black|#[0-9a-fA-F]{6}", self.background):
            raise ValueError(f"background is white, black or #rrggbb; got {self.background!r}")


@dataclass(frozen=True)
class ChainConfig:
    """The chain that is finetuned, and sampled afterwards."""

    steps: int = 5  # K, the budget of sampling steps; with custom times, their number
    sampler: str = "ddim"  # by name: ddim, ddpm-small, dpm-solver++-2m ... (docs/samplers.md)
    spacing: str = "midpoint"  # which K of the T times: midpoint, leading, quadratic-code ...
    times: tuple[float, ...] = ()  # a custom list, noisiest first: 999,640,320,80
    eta: float = 0.0  # noise that DDIM adds; 0, as in the paper, is none
    order: int = 0  # of ipndm, deis, unipc; 0 is as published, and at most 2 below 8 steps
    clip: bool | None = None  # clamp every x_0 to [-1, 1]; by default as diffusers does
    backward: str = "all"  # steps whose network calls get a gradient: all, last-N or random-N
    guidance: float = 1.0  # classifier-free, of a model with classes: two calls a step; 1 is none

    def __post_init__(self) -> None:
        if not re.fullmatch("all|(last|random)-[1-9][0-9]*", self.backward):
            raise ValueError(
                f"chain.backward is all, last-N or random-N, N steps; got {self.backward!r}"
            )
        _at_least(self, "chain.", guidance=0)


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised (Eq. 7)."""

    features: tuple[str, ...] = ("denoiser",)  # spaces to optimise; denoiser is the model's own
    weights: tuple[float, ...] = ()  # one a space; default: equal
    kernel: str = "cubic"  # of the MMD: linear, cubic, gaussian or gaussian:SIGMA
    standardise: bool = True  # each space, by the data's mean and deviation; the paper does not
    reference: str = "bank"  # cross term over the whole set; or a fresh minibatch, as the paper
    landmarks: int = 0  # so many weighted rows stand for a bank of millions (Nystroem); 0 is none
    clamp: str = "straight-through"  # of the images; hard, as the paper: no gradient if saturated

    def __post_init__(self) -> None:
        if not self.features:
            raise ValueError("objective.features is empty; name at least one feature space")
        _at_least(self, "objective.", landmarks=0)
        if self.landmarks and self.reference == "minibatch":
            raise ValueError("objective.landmarks stand for the bank; a minibatch needs none")
        if self.clamp not in ("straight-through", "hard"):
            raise ValueError(f"objective.clamp is straight-through or hard; got {self.clamp!r}")


@dataclass(frozen=True)
class SelectConfig:
    """Which checkpoint is kept: the last whose KID is the lowest, or not above it for certain.

    The space is neither optimised nor a judge; the images, a tenth of data, are neither matched
    nor judged by.
    """

    features: str = "random"  # space that checkpoints are compared in
    every: int = 50  # iterations between evaluations; 0 keeps the last
    samples: int = 1000  # images drawn for each
    patience: int = 5  # stop after so many evaluations without a lower KID; 0 is never
    diverged: float = 2.0  # stop at this many times the base's KID, plus 5 errors; 0 is never

    def __post_init__(self) -> None:
        _at_least(self, "select.", every=0, samples=2, patience=0, diverged=0)


@dataclass(frozen=True)
class ConditionConfig:
    """How classes or captions are matched, of a conditional model."""

    match: str = "joint"  # images with their class; class: each class alone; ignore: no classes
    mix: float = 0.25  # of the per-class term in the joint MMD: 0 sees no classes, 1 is class
    each: int = 4  # images of a class in a batch, as long as there are classes for all
    bake_guidance: bool = False  # train one call a step, which needs no chain.guidance afterwards
    null_label: int = -1  # the label that means none, for guidance; -1 is what the model says
    text: str = "clip"  # whose embeddings say how alike captions are: clip, or clip:MODEL

    def __post_init__(self) -> None:
        if self.match not in ("joint", "class", "ignore"):
            raise ValueError(f"condition.match is joint, class or ignore; got {self.match!r}")
        _at_least(self, "condition.", mix=0, each=2, null_label=-1)
        if self.mix > 1:
            raise ValueError(f"condition.mix must be at most 1; got {self.mix:g}")

    @property
    def class_share(self) -> float | None:
        """Of the per-class term in the loss; None where classes are not seen."""
        return {"joint": self.mix, "class": 1.0, "ignore": None}[self.match]


@dataclass(frozen=True)
class FinetuneConfig(ReadConfig):
    """`mmd-ddm finetune`; the defaults are the paper's."""

    model: str = ""  # diffusers folder, hub id, run, or fashion-mnist
    data: str = ""  # images to match: folder, zip, IDX, .npy/.npz, or a public set
    heldout: str = ""  # images only evaluation sees; by default a fifth of the data
    chain: ChainConfig = field(default_factory=ChainConfig)  # what is finetuned
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)  # what is minimised
    select: SelectConfig = field(default_factory=SelectConfig)  # what is kept
    judges: tuple[str, ...] = ("efficientnet-lite0",)  # spaces of the verdict, never optimised
    judge_samples: int = 3000  # images drawn for the verdict; more resolve smaller gains
    budgets: tuple[int, ...] = ()  # K, or all that one model serves: 3,5,8,12; chain.steps is one
    compare_steps: tuple[int, ...] = (10, 20)  # more steps of the base, for the equal-quality row
    trained: str = ""  # all (below 200 M weights), no-convolutions, lora (above); times ...
    sampler_lr: float = 3e-2  # of times and coefficients, learning rate of Adam as well
    lora_rank: int = 8  # of lora's additions to each layer
    iterations: int = 500  # how many
    batch_size: int = 128  # N of Eq. 7
    micro_batch: int = 0  # images through the chain at once; 0 is what `mmd-ddm plan` picks
    recompute: bool = True  # network calls that do not fit, in the backward pass: memory free of K
    lr: float = 5e-6  # learning rate of Adam (0.9, 0.999, 1e-8)
    cosine: bool = False  # lr falls to 0 on a cosine; a short run at a high lr ends less at random
    ema_decay: float = 0.99  # of the weights that are evaluated and saved; 0 is none
    grad_clip: float = 1.0  # largest gradient norm; 0 is none
    precision: str = "float32"  # or bfloat16: the network under autocast, weights in float32
    save_every: int = 50  # iterations between checkpoints to resume from
    keep: int = 1  # checkpoints that are kept, the newest included
    seed: int = 0  # of everything random
    device: str = "auto"  # where to compute: auto, cpu, cuda, cuda:1 ...
    recipe: str = "paper"  # of what is not set: paper; or auto, what did best at that many steps
    condition: ConditionConfig = field(default_factory=ConditionConfig)  # of a model with classes
    keep_checkpoint: bool = False  # of a finished run, which can then be given more iterations
    method: str = "mmd"  # or endpoint, pairs, progressive, consistency, score, reward
    teacher: TeacherConfig = field(default_factory=TeacherConfig)  # of endpoint and pairs
    progressive: ProgressiveConfig = field(default_factory=ProgressiveConfig)  # its rounds
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)  # its levels
    score: ScoreConfig = field(default_factory=ScoreConfig)  # its critic
    reward: RewardConfig = field(default_factory=RewardConfig)  # what it raises
    decoder: str = ""  # of latents, in the loss alone: tiny, or the folder of an AutoencoderTiny

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(self, batch_size=2, judge_samples=2)  # Eq. 7 needs 2 of a kind
        _at_least(self, iterations=0, micro_batch=0, lora_rank=1, sampler_lr=0)
        _check_training(self)
        if self.chain.guidance != 1 and self.trained_numbers:
            raise ValueError(
                f"trained = {self.trained} makes numbers of one call a step, not of guidance; "
                "train weights alone, or set chain.guidance = 1"
            )
        if self.recipe not in ("paper", "auto"):
            raise ValueError(f"recipe is paper or auto; got {self.recipe!r}")
        if self.trained not in _TRAINED:
            raise ValueError(
                "trained is all, no-convolutions or lora, of the network; times, coefficients, "
                "sampler, ggdm or ggdm+times, of the chain; or both, as all+times; "
                f"got {self.trained!r}"
            )
        object.__setattr__(self, "budgets", _check_budgets(self))
        check_method(self)
        # The space of the model itself is recorded under its full name, which holds elsewhere too.
        named = {
            "objective": replace(
                self.objective, features=tuple(map(self._in_full, self.objective.features))
            ),
            "select": replace(self.select, features=self._in_full(self.select.features)),
            "judges": tuple(map(self._in_full, self.judges)),
        }
        for key, value in named.items():
            object.__setattr__(self, key, value)

    def _in_full(self, space: str) -> str:
        own = re.match("denoiser(?=@|$)", space)
        return f"denoiser:{self.model}{space[own.end() :]}" if own else space

    @property
    def optimised(self) -> tuple[str, ...]:
        """The feature spaces that are matched; only MMD matches any."""
        return self.objective.features if self.method == "mmd" else ()

    @property
    def rewards(self) -> tuple[str, ...]:
        """What the method reward raises; empty for the others."""
        return (self.reward.of,) if self.method == "reward" else ()

    @property
    def losses(self) -> tuple[str, ...]:
        """What the loss sees the images through."""
        return self.optimised + self.rewards

    @property
    def trained_guidance(self) -> float:
        """That of the chain that comes out."""
        return 1.0 if self.condition.bake_guidance else self.chain.guidance

    @property
    def trained_weights(self) -> str:
        """Which weights of the network are trained; empty for none."""
        return _TRAINED[self.trained][0]

    @property
    def trained_numbers(self) -> str:
        """Which numbers of the sampler are trained; empty for none."""
        return _TRAINED[self.trained][1]


@dataclass(frozen=True)
class NetworkConfig:
    """A diffusers UNet2DModel."""

    channels: tuple[int, ...] = (32, 64, 112)  # width at each resolution
    attention: tuple[bool, ...] = (False, False, True)  # self-attention at each resolution
    layers_per_block: int = 1  # residual blocks at each resolution
    attention_head_dim: int = 56  # channels of a head
    norm_num_groups: int = 8  # of every group norm

    def __post_init__(self) -> None:
        sizes = ("layers_per_block", "attention_head_dim", "norm_num_groups")
        _at_least(self, "network.", **dict.fromkeys(sizes, 1))
        if min(self.channels, default=0) < 1:
            raise ValueError(f"network.channels are at least 1; got {list(self.channels)}")


@dataclass(frozen=True)
class PretrainConfig(ReadConfig):
    """`mmd-ddm pretrain`: the denoising loss (Eq. 5)."""

    data: str = ""  # images: folder, zip, IDX, .npy/.npz, or a public set
    image_size: int = 0  # of the images after --resize; 0 takes them as they are
    network: NetworkConfig = field(default_factory=NetworkConfig)  # what is trained
    objective: str = "eps"  # or v, x_0; flow, a rectified flow's; edm
    iterations: int = 10000  # how many
    batch_size: int = 128  # images an iteration
    lr: float = 1e-3  # peak learning rate of Adam; a cosine brings it to 0
    warmup: int = 200  # iterations of linear warm-up
    ema_decay: float = 0.9995  # of the weights that are kept; 0 is none
    grad_clip: float = 1.0  # largest gradient norm; 0 is none
    flip: bool = True  # mirror every image with probability 1/2
    precision: str = "float32"  # or bfloat16, for the network alone
    compile: bool = False  # torch.compile, after its gradient has agreed with eager's
    minutes: float = 0  # stop (and resume later) after so long; 0 is never
    save_every: int = 500  # iterations between checkpoints to resume from
    keep: int = 1  # checkpoints that are kept, the newest included
    seed: int = 0  # of everything random
    device: str = "auto"  # where to compute: auto, cpu, cuda, cuda:1 ...
    labels: bool = False  # make it class-conditional: class folders, or labels beside the images
    label_dropout: float = 0.1  # chance that an image is shown without its class, for guidance
    model: str = ""  # whose weights the network begins with; none is chance

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(self, iterations=1, batch_size=1, image_size=0, warmup=0, minutes=0)
        _at_least(self, label_dropout=0)
        _check_training(self)


@dataclass(frozen=True)
class HeadConfig(ReadConfig):
    """`mmd-ddm genie-head`: the distillation of GENIE's derivative."""

    data: str = ""  # images: folder, zip, IDX, .npy/.npz, or a public set
    iterations: int = 2000  # how many
    batch_size: int = 64  # images an iteration
    lr: float = 1e-3  # learning rate of Adam; a cosine brings it to 0
    ema_decay: float = 0.99  # of the weights that are kept; 0 is none
    grad_clip: float = 1.0  # largest gradient norm; 0 is none
    save_every: int = 100  # iterations between checkpoints to resume from
    keep: int = 1  # checkpoints that are kept, the newest included
    seed: int = 0  # of everything random
    device: str = "auto"  # where to compute: auto, cpu, cuda, cuda:1 ...

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(self, iterations=1, batch_size=1)
        _check_training(self)


def check_seed(seed: int) -> None:
    """Image i is drawn from ``seed + i``, which must be a seed as well.

    Raises:
        ValueError: a seed that is negative or too large.
    """
    if not 0 <= seed < 2**62:
        raise ValueError(f"a seed is from 0 to 2^62; got {seed}")


def _check_budgets(config: FinetuneConfig) -> tuple[int, ...]:
    """Rising, each once; none where there is but one, which is chain.steps."""
    budgets, listed = tuple(sorted({*config.budgets})), ", ".join(map(str, config.budgets))
    if budgets in ((), (config.chain.steps,)):
        return ()
    if budgets[0] < 1:
        raise ValueError(f"budgets are at least 1 step; got {listed}")
    if config.chain.times:
        raise ValueError(
            f"one list of chain.times cannot serve the budgets {listed}; give chain.spacing"
        )
    if config.chain.steps not in budgets:
        raise ValueError(
            f"chain.steps = {config.chain.steps} is not among the budgets {listed}; set it to the "
            "one that images are drawn with unless another is asked for"
        )
    if config.trained_numbers:
        raise ValueError(
            f"trained = {config.trained} makes numbers of one chain, not of the budgets {listed}; "
            "train weights alone, or give one number of steps"
        )
    return budgets


def _check_training(config: FinetuneConfig | PretrainConfig | HeadConfig) -> None:
    """What both kinds of training ask for."""
    _at_least(config, save_every=1, keep=1, lr=0, ema_decay=0, grad_clip=0)
    check_seed(config.seed)
    if config.ema_decay >= 1:
        raise ValueError(f"ema_decay must be less than 1; got {config.ema_decay:g}")
