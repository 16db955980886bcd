"""What runs M0's layers: torch, or OpenVINO; in float32 or in bfloat16."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

Part = Callable[[torch.Tensor], Sequence[torch.Tensor]]

ENGINES, PRECISIONS = ("torch", "openvino"), ("float32", "bfloat16")

_ROUNDING = {"float32": 1e-3, "bfloat16": 0.3}
"""How far an engine's outputs may be from torch's, as a share of their norm."""


@dataclass(frozen=True)
class Engine:
    """An engine and the precision of its products.

    Attributes
    ----------
    name : {"torch", "openvino"}
    precision : {"float32", "bfloat16"}
    """

    name: str = "torch"
    precision: str = "float32"

    def __str__(self) -> str:
        """Part of the name of what is kept; empty for torch in float32."""
        return "" if self == TORCH else f"{self.name}-{self.precision}"

    def ready(self, part: fx.GraphModule, device: torch.device) -> Part:
        """Make a part of a network run on this engine.

        Parameters
        ----------
        part : torch.fx.GraphModule
            For inference, on the device.
        device : torch.device

        Raises
        ------
        ImportError
            If the package is missing.
        ValueError
            If the engine does not run on this device, or not in this precision.
        """
        if self.name == "openvino":
            return _OpenVINOPart(part, device, self.precision)
        return part if self.precision == "float32" else _AutocastPart(part)


TORCH = Engine()


class _AutocastPart(nn.Module):
    """Products in bfloat16, what they give in float32."""

    def __init__(self, part: fx.GraphModule) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        with torch.autocast(x.device.type, torch.bfloat16):
            return [output.float() for output in self.part(x)]


class _OpenVINOPart:
    """A part of a network, compiled for each shape of input when it first comes."""

    def __init__(
        self, part: fx.GraphModule, device: torch.device, precision: str
    ) -> None:
        if device.type != "cpu":
            raise ValueError(
                f"engine='openvino' runs on the CPU and device is {str(device)!r}: "
                "take engine='torch', or device='cpu'."
            )
        self._part, self._precision = part, precision
        self._core = _import_openvino().Core()
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
        found = compiled(x.contiguous().numpy(), share_inputs=True)
        return [torch.from_numpy(found[i]) for i in range(len(found))]

    def _compile(self, x: torch.Tensor) -> Any:
        """Compile for any number of rows, and compare with torch on those of `x`."""
        if len(x) == 1:  # a number of rows that tracing took for fixed has to show
            x = torch.cat([x, x])
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch calls its tracer deprecated
                traced = torch.jit.trace(self._part, x[:1], check_trace=False)
            # Not by openvino.convert_model: that reports its use over the network.
            frontend = FrontEndManager().load_by_framework("pytorch")
            decoder = TorchScriptPythonDecoder(traced)  # has to live until the end
            model = frontend.convert(frontend.load(decoder))
            model.reshape([-1, *x.shape[1:]])
            compiled = self._core.compile_model(model, "CPU", self._settings())
            found = self._run(compiled, x)
        except Exception as error:  # of types that are OpenVINO's own
            raise ValueError(f"{_CANNOT} ({error}).") from error
        for mine, expected in zip(found, self._part(x), strict=True):
            off = float((mine - expected).norm() / expected.norm().clamp(min=1e-12))
            if not off <= _ROUNDING[self._precision]:
                raise ValueError(f"{_CANNOT}: its outputs are off by {off:.0%}.")
        return compiled

    def _settings(self) -> dict[str, object]:
        return {
            "INFERENCE_PRECISION_HINT": _HINTS[self._precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }


_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_CANNOT = "OpenVINO cannot run this network as torch does; take engine='torch'"


def _import_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise ImportError(
            "engine='openvino' needs the package openvino: pip install skadma[openvino]"
        ) from error
    return openvino
