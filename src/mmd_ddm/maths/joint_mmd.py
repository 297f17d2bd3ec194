r"""The squared MMD between two sets of vectors with conditions, under a product kernel.

Generated and real pairs (x, c) share p(c). With delta_c, the difference of the mean embeddings of
phi under k within condition c, and k((x, c), (x', c')) = k(x, x') k_c(c, c'),

    MMD^2 = sum_{c, c'} p_c p_c' k_c(c, c') <delta_c, delta_c'>

k_c = 1 is the marginal, blind to errors that cancel over the classes; k_c = 1[c = c'] / p_c is the
average per-class MMD, blind to none. A mixture of the two is `LabelKernel`. Where hardly two
images share a condition, as captions, k_c has to be soft: `TextKernel`. It is all the same here:
each condition has a number, and a share.

A batch of fixed counts n_c is no sample of independent labels: the plain U-statistic on it is
biased, by -(K_w - K_b)(C - 1) / (C (B - 1)) for B vectors in C equal classes, with K_w and K_b the
mean kernel within and between the generated classes, so that lowering it drives classes apart.
Here every pair is weighted by its classes, which is unbiased for any counts,

    sum_c p_c^2 k_c / (n_c (n_c - 1)) sum_{i != j in c} k
      + sum_{c != c'} p_c p_c' k_c / (n_c n_c') sum k
      - 2 sum_{c, c'} p_c p_c' k_c mean_{x in c, y in c'} k + const

and, of G classes drawn from C with equal chance, each sum over classes is divided by the chance
that its terms have to be in the batch: G / C, and G (G - 1) / (C (C - 1)) of two classes
(Horvitz & Thompson, 1952).
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmd_ddm.maths.kernels import Gaussian, Kernel
from mmd_ddm.maths.mmd import pair_sum, within

__all__ = ["LabelKernel", "TextKernel", "joint_constant", "joint_mmd2"]

_SOME = 2048  # captions by which the scale of a kernel is told


@dataclass(frozen=True)
class LabelKernel:
    r"""k_c(c, c') = (1 - mix) + mix 1[c = c'] / p_c.

    Attributes:
        shares: p_c, of every class among the real vectors; 0 of those that are not among them.
        mix: of the per-class term, from 0, the marginal, to 1, the average over classes.
    """

    shares: Float[Tensor, " c"]
    mix: float

    @classmethod
    def of(cls, labels: Int64[Tensor, " m"], mix: float) -> "LabelKernel":
        """With the shares that the classes have among these labels."""
        counts = torch.bincount(labels)
        return cls(counts / counts.sum(), mix)

    def __call__(self, a: Int64[Tensor, " n"], b: Int64[Tensor, " m"]) -> Float[Tensor, "n m"]:
        """Return k_c(a_i, b_j)."""
        return (1 - self.mix) + self.mix * self._alike(a, b)

    def _alike(self, a: Int64[Tensor, " n"], b: Int64[Tensor, " m"]) -> Float[Tensor, "n m"]:
        """That of the per-class term: of mean one over independent pairs."""
        same = (a[:, None] == b).to(self.shares)
        return same / self.shares[a][:, None]

    @property
    def of_pairs(self) -> bool:
        """Whether different conditions count as pairs."""
        return self.mix < 1


@dataclass(frozen=True)
class TextKernel(LabelKernel):
    r"""k_c(c, c') = (1 - mix) + mix exp(-||tau_c - tau_c'||^2 / (2 s^2)) / Z, Z its mean.

    With s the median distance of different captions, and Z over independent pairs, both of at most
    2,048 captions: what they scale is as large as the per-class term of classes.

    Attributes:
        vectors: tau, a frozen text embedding of every caption, by its number.
        width: s.
        scale: 1 / Z.
    """

    vectors: Float[Tensor, "c d"]
    width: float
    scale: float = 1.0

    @classmethod
    def over(
        cls, labels: Int64[Tensor, " m"], mix: float, vectors: Float[Tensor, "c d"]
    ) -> "TextKernel":
        """With the shares that the captions have among these images.

        Raises:
            ValueError: one caption.
        """
        counts = torch.bincount(labels, minlength=len(vectors))
        draw = torch.Generator().manual_seed(0)
        some = torch.randperm(len(vectors), generator=draw)[:_SOME].to(labels.device)
        apart = torch.pdist(vectors[some])
        if not len(apart) or not float(apart.median()):
            raise ValueError("all captions are alike: images of different ones are needed")
        kernel = cls(counts / counts.sum(), mix, vectors, float(apart.median()))
        p = (kernel.shares[some] / kernel.shares[some].sum()).to(vectors)
        return replace(kernel, scale=1 / float(p @ kernel._alike(some, some) @ p))

    @property
    def of_pairs(self) -> bool:
        """They do."""
        return True

    def _alike(self, a: Int64[Tensor, " n"], b: Int64[Tensor, " m"]) -> Float[Tensor, "n m"]:
        each, of_a = a.unique(return_inverse=True)  # several images of a batch have one caption
        alike = Gaussian(self.width)(self.vectors[each], self.vectors[b])
        return self.scale * alike[of_a]


def joint_mmd2(
    x: Float[Tensor, "n d"],
    of_x: Int64[Tensor, " n"],
    y: Float[Tensor, "m d"],
    of_y: Int64[Tensor, " m"],
    kernel: Kernel,
    label_kernel: LabelKernel,
    *,
    constant: float,
) -> Float[Tensor, ""]:
    """The unbiased squared MMD under the product kernel.

    Args:
        x: generated features, of at least two vectors a class.
        of_x: their classes: all that have a share, or as many drawn with equal chance.
        y: real features, all of them or some drawn at random.
        of_y: their classes.
        kernel: of the features.
        label_kernel: of the classes, with their shares.
        constant: the term of the real set alone; see `joint_constant`.

    Raises:
        ValueError: a class of x with one vector, or one that has no share; one class alone, where
            pairs of different classes count.
    """
    p, same = label_kernel.shares.to(x), of_x[:, None] == of_x
    n, p_x = same.sum(1).to(x), p[of_x]
    drawn, classes = len(of_x.unique()), int((p > 0).sum())
    if bool((n < 2).any()) or bool((p_x == 0).any()):
        raise ValueError(
            "each class of a batch needs two vectors, and real ones of its class; got classes "
            f"{of_x.unique().tolist()} of {of_x.bincount().tolist()} vectors"
        )
    if drawn == 1 < classes and label_kernel.of_pairs:
        raise ValueError(f"a batch of one class of {classes} has no pairs of different classes")
    one = drawn / classes
    two = drawn * (drawn - 1) / max(classes * (classes - 1), 1) or 1.0
    chance = torch.where(same, one * (n - 1) / n, two)  # of a class without the pairs (i, i)
    shares = p_x / n
    pairs = label_kernel(of_x, of_x) * shares[:, None] * shares / chance
    pairs.fill_diagonal_(0)
    with_y = label_kernel(of_x, of_y) * shares[:, None] / (one * len(y))
    to_y = pair_sum(x, y, kernel, with_y.to(x))
    return pair_sum(x, x, kernel, pairs.to(x)) - 2 * to_y + constant


def joint_constant(
    y: Float[Tensor, "m d"],
    of_y: Int64[Tensor, " m"],
    kernel: Kernel,
    label_kernel: LabelKernel,
) -> float:
    """The real set's own term of the MMD, unbiased.

    Captions are taken as independent draws: hardly one has two images.

    Raises:
        ValueError: a class of one vector.
    """
    mix, total, m = label_kernel.mix, 0.0, len(y)
    if isinstance(label_kernel, TextKernel):
        for rows in torch.arange(m, device=y.device).split(_SOME):
            pairs = label_kernel(of_y[rows], of_y)
            pairs[torch.arange(len(rows)), rows] = 0
            total += float(pair_sum(y[rows], y, kernel, pairs.to(y))) / (m * (m - 1))
        return total
    if mix < 1:
        total += (1 - mix) * float(within(y, kernel))
    for c in of_y.unique() if mix else ():
        own = y[of_y == c]
        if len(own) < 2:
            raise ValueError(f"class {int(c)} has one image to match; at least 2 are needed")
        total += mix * float(label_kernel.shares[c]) * float(within(own, kernel))
    return total
