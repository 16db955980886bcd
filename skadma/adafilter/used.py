"""For inference: of the two sets of filters, those that some image of a batch takes."""

from __future__ import annotations

import torch
from torch import fx, nn

from .gates import mix

_MOST_MIXED = 0.5
"""Share of filters of which both kinds are taken, above which all are computed: picking
channels out costs more than it saves then (1 x 1 convolutions, two cores)."""


class UsedFilters(nn.Module):
    """Both convolutions and their mixture, without the filters that no image takes.

    A channel whose gate is the same in the whole batch needs one filter, so that a
    convolution with the right one of each kind does for it; only the others are
    computed a second time.

    Parameters
    ----------
    fine, frozen : torch.nn.Conv2d
        Of the same shape.
    """

    def __init__(self, fine: nn.Conv2d, frozen: nn.Conv2d) -> None:
        super().__init__()
        self.fine = fine
        self.frozen = frozen

    def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """Convolve a batch (n, c, h, w) with the filters of its gates (n, filters)."""
        if x.device.type != "cpu":  # elsewhere, to look at the gates is to wait for it
            return mix(self.fine(x), self.frozen(x), gate)
        n_open = gate.sum(0)
        mixed = torch.nonzero((n_open > 0) & (n_open < len(gate)))[:, 0]
        if len(mixed) > _MOST_MIXED * gate.shape[1]:
            return mix(self.fine(x), self.frozen(x), gate)
        fine, frozen = self.fine, self.frozen
        is_fine = n_open == len(gate)
        weight = torch.where(is_fine[:, None, None, None], fine.weight, frozen.weight)
        bias = None
        if fine.bias is not None and frozen.bias is not None:
            bias = torch.where(is_fine, fine.bias, frozen.bias)
        y = fine._conv_forward(x, weight, bias)
        if len(mixed):
            bias = None if fine.bias is None else fine.bias[mixed]
            second = fine._conv_forward(x, fine.weight[mixed], bias)
            y[:, mixed] = mix(second, y[:, mixed], gate[:, mixed])
        return y


def compute_used_filters(part: fx.GraphModule) -> fx.GraphModule:
    """Put :class:`UsedFilters` where two plain convolutions are mixed.

    Depthwise and grouped convolutions stay: there is little to save in them.

    Parameters
    ----------
    part : torch.fx.GraphModule
        For inference, its batch norms folded. It is changed.

    Returns
    -------
    torch.fx.GraphModule
        `part`.
    """
    for node in list(part.graph.nodes):
        if node.target is not mix:
            continue
        found = [_convolution(part, branch) for branch in node.args[:2]]
        (fine, activation), (frozen, other) = found
        if fine is None or frozen is None or type(activation) is not type(other):
            continue
        name = f"used_{node.name}"
        convs = (part.get_submodule(str(conv.target)) for conv in (fine, frozen))
        part.add_submodule(name, UsedFilters(*convs))  # type: ignore[arg-type]
        with part.graph.inserting_before(node):
            y = part.graph.call_module(name, (fine.args[0], node.args[2]))
            if activation is not None:
                y = part.graph.call_module(node.args[0].target, (y,))
        node.replace_all_uses_with(y)
        part.graph.erase_node(node)
    part.graph.eliminate_dead_code()
    part.delete_all_unused_submodules()
    part.recompile()
    return part


def _convolution(
    part: fx.GraphModule, node: fx.Node
) -> tuple[fx.Node | None, nn.Module | None]:
    """Find the plain convolution that a value comes from, and what folding left."""
    if node.op != "call_module" or len(node.users) > 1:
        return None, None
    module = part.get_submodule(str(node.target))
    if type(module) is nn.Conv2d and module.groups == 1:
        return node, None
    before = node.all_input_nodes[0]
    has_state = next(iter(module.state_dict()), None) is not None
    if has_state or before.op != "call_module":
        return None, None
    conv, activation = _convolution(part, before)
    return (conv, module) if conv is not None and activation is None else (None, None)
