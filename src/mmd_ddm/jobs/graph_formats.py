"""How a chain is written as a file, how the file draws, and whether its pixels are the chain's.

In float32 no pixel may be more than one grey level away. Weights in float16 change the images
themselves; how much is measured, said and bounded. Integer weights are not offered: their error
was up to 199 levels.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmd_ddm.maths.pixels import to_uint8
from mmd_ddm.maths.random import sample_noise
from mmd_ddm.models.conditions import Condition
from mmd_ddm.models.shipped import __path__ as shipped
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.graph import ChainGraph

__all__ = ["FORMATS", "ONNX", "PRECISIONS", "Difference", "compare", "onnx_drawing"]

Draw = Callable[[Tensor, Tensor | None], np.ndarray]  # noise and labels to pixels

_CHECKED = 16  # images, in batches of 1 and the rest
PRECISIONS = {"float32": 1, "float16": 16}  # grey levels that a pixel may be away
_MEAN = 0.5  # of all pixels, in float16


@dataclass(frozen=True)
class Difference:
    """How far the pixels of a file are from those of the chain.

    Attributes:
        most: of any pixel, in grey levels of 0 ... 255.
        mean: over all pixels.
        share: of pixels that differ at all.
    """

    most: int
    mean: float
    share: float

    def __str__(self) -> str:
        return (
            f"at most {self.most} grey levels, {self.mean:.2g} on average, none in "
            f"{100 - 100 * self.share:.4g} % of pixels"
        )


@torch.no_grad()
def compare(draw: Draw, sampler: Sampler, precision: str) -> Difference:
    """What a file draws beside what the chain draws, from the same noise.

    Args:
        draw: the file.
        sampler: the chain.
        precision: of the file's weights.

    Raises:
        ValueError: they differ by more than it may be.
    """
    denoiser, seeds = sampler.denoiser, range(_CHECKED)
    noise, condition = sample_noise(seeds, denoiser.shape)[0], denoiser.conditions(seeds)
    expected = to_uint8(denoiser.to_images(sampler(noise, None, condition))).numpy()
    parts = [draw(noise[of], _labels(condition, of)) for of in (slice(1), slice(1, None))]
    apart = np.abs(np.concatenate(parts).astype(int) - expected)
    found = Difference(int(apart.max()), float(apart.mean()), float((apart > 0).mean()))
    if found.most > PRECISIONS[precision] or found.mean > _MEAN:
        raise ValueError(
            f"the file draws other pixels than the chain ({found}), and was not kept: take "
            f"{'float32' if precision == 'float16' else 'another sampler'}"
        )
    return found


def _labels(condition: Condition | None, of: slice) -> Tensor | None:
    return None if condition is None else condition.labels[of]


def onnx_drawing(path: Path) -> Draw:
    """An ONNX file, run by onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it tells of every constant that it folds
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options)

    def draw(noise: Tensor, label: Tensor | None) -> np.ndarray:
        given = {"noise": noise.numpy()} | ({} if label is None else {"label": label.numpy()})
        images: np.ndarray = session.run(None, given)[0]
        return images

    return draw


def _onnx_model(graph: ChainGraph, half: bool) -> Any:
    from mmd_ddm.jobs.onnx_graph import ChainWriter

    return ChainWriter(graph.denoiser, half=half).model(graph)


def _write_onnx(graph: ChainGraph, folder: Path, half: bool) -> Draw:
    from onnx import save

    shutil.copy(Path(shipped[0]) / "run_onnx.txt", folder / "run.py")
    save(_onnx_model(graph, half), folder / "model.onnx")
    return onnx_drawing(folder / "model.onnx")


def _write_torch(graph: ChainGraph, folder: Path, half: bool) -> Draw:
    size = {0: torch.export.Dim.DYNAMIC}
    inputs: dict[str, Any] = {"noise": torch.zeros(2, *graph.denoiser.shape)}
    if graph.denoiser.classes:
        inputs["label"] = torch.zeros(2, dtype=torch.int64)
    program = torch.export.export(
        graph, (), inputs, dynamic_shapes=dict.fromkeys(inputs, size), strict=False
    )
    torch.export.save(program, folder / "model.pt2")
    loaded = torch.export.load(folder / "model.pt2").module()

    def draw(noise: Tensor, label: Tensor | None) -> np.ndarray:
        images: Tensor = loaded(noise=noise, **({} if label is None else {"label": label}))
        return images.numpy()

    return draw


def _write_openvino(graph: ChainGraph, folder: Path, half: bool) -> Draw:
    import openvino
    from onnx import save
    from onnx.inliner import inline_local_functions

    # Its reader of ONNX knows no functions of a model's own.
    save(inline_local_functions(_onnx_model(graph, False)), folder / "model.onnx")
    model = openvino.convert_model(folder / "model.onnx")
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=half)
    (folder / "model.onnx").unlink()
    compiled = openvino.compile_model(
        folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )

    def draw(noise: Tensor, label: Tensor | None) -> np.ndarray:
        given = [noise.numpy()] + ([] if label is None else [label.numpy()])
        images: np.ndarray = compiled(given)[0]
        return images

    return draw


@dataclass(frozen=True)
class _Format:
    """How a format is written and run.

    Attributes:
        write: writes it into a folder, in float16 or not, and gives what draws with it.
        packages: that it needs here.
        library: that runs it.
        code: the same in a few lines.
    """

    write: Callable[[ChainGraph, Path, bool], Draw]
    packages: tuple[str, ...]
    library: str
    code: str


ONNX = ("onnx", "onnxscript", "onnxruntime")
FORMATS = {
    "onnx": _Format(_write_onnx, ONNX, "onnx", "pip install numpy onnxruntime\npython run.py 16"),
    "torch-export": _Format(
        _write_torch,
        (),
        "pytorch",
        "import torch\n\ndraw = torch.export.load('model.pt2').module()\n"
        "images = draw(noise=torch.randn(16, *shape))",
    ),
    "openvino": _Format(
        _write_openvino,
        (*ONNX, "openvino"),
        "openvino",
        "import numpy as np\nimport openvino\n\n"
        "draw = openvino.compile_model('model.xml', 'CPU')\n"
        "images = draw([np.random.standard_normal((16, *shape)).astype(np.float32)])[0]",
    ),
}
