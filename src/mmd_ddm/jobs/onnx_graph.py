"""A chain as one ONNX model: the network traced once, and called as often as the chain asks.

The exporter traces one network call into a function of the model, which holds no weights; sums,
clamps and the rounding to pixels are written around its calls with their numbers as constants. So
the file grows little with K, and a graph of another K needs no other trace.
"""

import warnings
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from mmd_ddm.models.conditions import Condition
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.graph import ChainGraph

__all__ = ["ChainWriter"]

_OPSET = 18
_DOMAIN = "mmd_ddm"
_SMALL = 256  # numbers; what has fewer stays in float32


class ChainWriter:
    """Writes chains of one network.

    Args:
        denoiser: of a `ChainGraph`.
        half: hold the weights in float16; they are used in float32.
    """

    def __init__(self, denoiser: Denoiser, *, half: bool = False) -> None:
        self.denoiser = denoiser
        self.half = half
        self.labelled = bool(denoiser.classes)
        traced = _traced_call(denoiser)
        self._opsets, self._weights = traced.opset_import, traced.graph.initializer
        self._inner = list(traced.functions)
        graph = traced.graph
        given = [*(one.name for one in graph.input), *(one.name for one in self._weights)]
        self._call = helper.make_function(
            _DOMAIN, "Network", given, [graph.output[0].name], graph.node, self._opsets
        )

    def model(self, chain: ChainGraph) -> onnx.ModelProto:
        """The model of noise to images: "noise" [n, c, h, w] and "label" [n] to "images", uint8.

        Args:
            chain: of this denoiser, or one with the same weights.
        """
        write = _Lines()
        known = [write("Mul", "noise", write.number(chain.start))]
        state = known[0]
        for time, weights in chain.questions:
            state = write.sum(weights, known)
            known.append(
                write.clamp(state, -1, 1) if time is None else self._x_0(chain, write, state, time)
            )
        unit = write.clamp(write.sum((0.5,), [state], add=0.5), 0, 1)
        rounded = write("Round", write("Mul", unit, write.number(255)))
        write.nodes.append(helper.make_node("Cast", [rounded], ["images"], to=TensorProto.UINT8))
        size: list[str | int | None] = ["n", *self.denoiser.shape]
        inputs = [helper.make_tensor_value_info("noise", TensorProto.FLOAT, size)]
        if self.labelled:
            inputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
        output = helper.make_tensor_value_info("images", TensorProto.UINT8, size)
        stored, casts = self._stored()
        graph = helper.make_graph(
            [*casts, *write.nodes], "chain", inputs, [output], [*stored, *write.constants]
        )
        opsets = [*self._opsets, helper.make_opsetid(_DOMAIN, 1)]
        made = helper.make_model(
            graph, functions=[self._call, *self._inner], opset_imports=opsets, ir_version=10,
            producer_name="mmd-ddm",
        )  # fmt: skip
        helper.set_model_props(made, {"classes": str(len(self.denoiser.classes))})
        onnx.checker.check_model(made)
        return made

    def _x_0(self, chain: ChainGraph, write: "_Lines", state: str, time: float) -> str:
        """The prediction of x_0: a sum of the state and of what the network says of it."""
        scale, told = _asked(chain.denoiser, time)
        seen = write.sum((scale,), [state])
        label = ["label"] if self.labelled else []
        said = self._network(write, seen, told, label)
        if chain.guidance != 1:
            null = write.number(self.denoiser.null_label or 0, np.int64)
            none = write("Add", write("Mul", "label", write.number(0, np.int64)), null)
            free = self._network(write, seen, told, [none])
            said = write.sum((1 - chain.guidance, chain.guidance), [free, said])
        return write.sum(_in_x_0(chain.denoiser, time), [state, said])

    def _network(self, write: "_Lines", seen: str, told: float, label: list[str]) -> str:
        time = write.constant(np.array([told], np.float32))
        return write(
            "Network", seen, time, *label, *(w.name for w in self._weights), domain=_DOMAIN
        )

    def _stored(self) -> tuple[list[TensorProto], list[onnx.NodeProto]]:
        """The weights as the file holds them, and what makes float32 of them."""
        stored, casts = [], []
        for weight in self._weights:
            values = numpy_helper.to_array(weight)
            if self.half and values.dtype == np.float32 and values.size > _SMALL:
                name = f"{weight.name}.half"
                stored.append(numpy_helper.from_array(values.astype(np.float16), name))
                casts.append(helper.make_node("Cast", [name], [weight.name], to=TensorProto.FLOAT))
            else:
                stored.append(weight)
        return stored, casts


class _Lines:
    """Nodes as they are written, each named by its number."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def __call__(self, kind: str, *inputs: str, domain: str = "") -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], domain=domain))
        return name

    def constant(self, value: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def number(self, value: float, kind: Any = np.float32) -> str:
        return self.constant(np.array(value, kind))

    def sum(self, weights: tuple[float, ...], values: list[str], add: float = 0.0) -> str:
        """The weighted sum, without what has no weight."""
        terms = [
            value if w == 1 else self("Mul", value, self.number(w))
            for w, value in zip(weights, values, strict=True)
            if w
        ]
        terms += [self.number(add)] * bool(add)
        total = terms[0]
        for term in terms[1:]:
            total = self("Add", total, term)
        return total

    def clamp(self, value: str, low: float, high: float) -> str:
        return self("Clip", value, self.number(low), self.number(high))


def _traced_call(denoiser: Denoiser) -> onnx.ModelProto:
    """One call of the network: x [n, c, h, w], time [1] and, with classes, label [n]."""

    class Call(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = denoiser.network

        def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
            told = {} if label is None else Condition.of_labels(label).tensors
            output = self.network(x, time, **told)
            answer: Tensor = getattr(output, "sample", output)[:, : x.shape[1]]
            return answer

    inputs = [torch.zeros(2, *denoiser.shape), torch.zeros(1)]
    sizes: list[Any] = [{0: torch.export.Dim.DYNAMIC}, None]
    if denoiser.classes:
        inputs.append(torch.zeros(2, dtype=torch.int64))
        sizes.append({0: torch.export.Dim.DYNAMIC})
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own code
        program = torch.export.export(
            Call(), tuple(inputs), dynamic_shapes=tuple(sizes), strict=False
        )
        traced = torch.onnx.export(program, dynamo=True, opset_version=_OPSET, verbose=False)
    assert traced is not None
    model: onnx.ModelProto = traced.model_proto
    for node in model.graph.node:  # where in the sources each was made: half of the file
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    return model


def _asked(denoiser: Denoiser, time: float) -> tuple[float, float]:
    """What a family makes of a question: the factor of x_t that its network sees, and the time."""
    seen: list[Tensor] = []

    def note(network: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.extend(inputs[:2])

    handle = denoiser.network.register_forward_pre_hook(note)
    try:
        denoiser(torch.ones(1, *denoiser.shape), time, denoiser.conditions([0]))
    finally:
        handle.remove()
    return float(seen[0].flatten()[0]), float(seen[1].flatten()[0])


def _in_x_0(denoiser: Denoiser, time: float) -> tuple[float, float]:
    """The shares of x_t and of what the network says in x_0."""
    one, none = (
        torch.ones(1, 1, 1, 1, dtype=torch.float64),
        torch.zeros(1, 1, 1, 1, dtype=torch.float64),
    )
    return tuple(float(denoiser.pair(x, time, said)[0]) for x, said in ((one, none), (none, one)))  # type: ignore[return-value]
