"""Engines that run frozen subgraphs: torch or OpenVINO, in float32 or in bfloat16."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

Subgraph = Callable[[torch.Tensor], Sequence[torch.Tensor]]

ENGINES, PRECISIONS = ("torch", "openvino"), ("float32", "bfloat16")

_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3}
"""How far an engine's outputs may be from torch's, as a share of their norm."""

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_CANNOT = "OpenVINO cannot run this network as torch does; take engine='torch'"


@dataclass(frozen=True)
class Engine:
    """One of :data:`ENGINES` and the precision of its products."""

    name: str = "torch"
    precision: str = "float32"

    def compile(self, subgraph: fx.GraphModule, device: torch.device) -> Subgraph:
        """Prepare a subgraph, which is on `device` and for inference, for this engine.

        ImportError if the engine's package is missing, ValueError if the engine does
        not run on this device or in this precision.
        """
        if self.name == "openvino":
            return _OpenVINOSubgraph(subgraph, device, self.precision)
        return subgraph if self.precision == "float32" else _Autocast(subgraph)


TORCH = Engine()


class _Autocast(nn.Module):
    """Products in bfloat16, outputs in float32."""

    def __init__(self, subgraph: fx.GraphModule) -> None:
        super().__init__()
        self.subgraph = subgraph

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        with torch.autocast(x.device.type, torch.bfloat16):
            return [output.float() for output in self.subgraph(x)]


class _OpenVINOSubgraph:
    """A subgraph, compiled for each shape of input when it first occurs."""

    def __init__(
        self, subgraph: fx.GraphModule, device: torch.device, precision: str
    ) -> None:
        if device.type != "cpu":
            raise ValueError(
                f"engine='openvino' runs on the CPU and device is {str(device)!r}: "
                "take engine='torch', or device='cpu'."
            )
        try:
            import openvino
        except ImportError as error:
            raise ImportError(
                "engine='openvino' needs the package openvino: pip install "
                "skadma[openvino]"
            ) from error
        self._subgraph, self._precision = subgraph, precision
        self._core = openvino.Core()
        able = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bfloat16" and "BF16" not in able:
            raise ValueError(
                "precision='bfloat16' with engine='openvino' needs a processor with "
                "bfloat16 instructions, and this one has none: take "
                "precision='float32'."
            )
        self._compiled: dict[tuple[int, ...], Any] = {}

    def __call__(self, x: torch.Tensor) -> list[torch.Tensor]:
        shape = tuple(x.shape[1:])
        if shape not in self._compiled:
            self._compiled[shape] = self._compile(x)
        return self._run(self._compiled[shape], x)

    @staticmethod
    def _run(compiled: Any, x: torch.Tensor) -> list[torch.Tensor]:
        outputs = compiled(x.contiguous().numpy(), share_inputs=True)
        return [torch.from_numpy(outputs[i]) for i in range(len(outputs))]

    def _compile(self, x: torch.Tensor) -> Any:
        """Compile for any number of rows, and compare with torch on those of `x`."""
        if len(x) == 1:  # shows whether tracing took the number of rows for fixed
            x = torch.cat([x, x])
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[self._precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch calls its tracer deprecated
                traced = torch.jit.trace(self._subgraph, x[:1], check_trace=False)
            # Not by openvino.convert_model: that reports its use over the network.
            frontend = FrontEndManager().load_by_framework("pytorch")
            decoder = TorchScriptPythonDecoder(traced)  # has to live until the end
            model = frontend.convert(frontend.load(decoder))
            model.reshape([-1, *x.shape[1:]])
            compiled = self._core.compile_model(model, "CPU", settings)
            found = [(rows, self._run(compiled, rows)) for rows in (x, -x)]
        except Exception as error:  # of types that are OpenVINO's own
            raise ValueError(f"{_CANNOT} ({error}).") from error
        for rows, outputs in found:  # a network may branch on values
            for mine, expected in zip(outputs, self._subgraph(rows), strict=True):
                off = float((mine - expected).norm() / expected.norm().clamp(min=1e-12))
                if not off <= _TOLERANCE[self._precision]:
                    raise ValueError(f"{_CANNOT}: its outputs are off by {off:.0%}.")
        return compiled
