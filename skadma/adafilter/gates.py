"""Which filters an example takes: the gate network and its hard threshold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx, nn

KINDS = ("recurrent", "independent", "global")


def threshold(logits: torch.Tensor) -> torch.Tensor:
    r"""Turn logits into gates of 0 or 1 that let a gradient through.

    .. math:: G = 1[z > 0], \qquad \partial G / \partial z := \sigma(z)(1 - \sigma(z)),

    the straight-through estimator [1]_ with the slope of the sigmoid in place of the
    step's, which is 0 wherever it exists.

    Parameters
    ----------
    logits : torch.Tensor

    Returns
    -------
    torch.Tensor of the same shape and dtype
        0 or 1.

    References
    ----------
    .. [1] Bengio, Leonard & Courville, Estimating or Propagating Gradients Through
       Stochastic Neurons for Conditional Computation, 2013, arXiv 1308.3432.
    """
    soft = torch.sigmoid(logits)
    hard = (logits > 0).to(soft.dtype)
    return hard + (soft - soft.detach())  # the difference is 0, exactly


def mix(fine: torch.Tensor, frozen: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Take each channel from the fine-tuned filter or from the pretrained one.

    Parameters
    ----------
    fine, frozen : torch.Tensor of shape (n, c, h, w)
        F(x) and S(x).
    gate : torch.Tensor of shape (n, c)
        0 or 1.

    Returns
    -------
    torch.Tensor of shape (n, c, h, w)
        G F(x) + (1 - G) S(x).
    """
    # Exact at both ends, and one pass over the maps where the formula takes three.
    return torch.lerp(frozen, fine, gate[:, :, None, None])


def pool(x: torch.Tensor) -> torch.Tensor:
    """Average maps (n, c, h, w) over their area."""
    return x.mean((2, 3))


class GlobalPolicy(nn.Module):
    """Logits that are the same for all examples.

    Parameters
    ----------
    n_filters : int
    width : int
        They start as the bias of a linear layer of so many inputs does, so that about
        half of the gates are open: were all of them shut, nothing would be learnt.
    """

    def __init__(self, n_filters: int, width: int) -> None:
        super().__init__()
        start = torch.empty(n_filters).uniform_(-1, 1) / width**0.5
        self.logits = nn.Parameter(start)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Repeat them for each example of a batch."""
        return self.logits.expand(len(x), -1)


class GateNetwork(nn.Module):
    """One gate for each example and filter of each layer.

    A layer's gates come from its input: average over the area, projection to a width
    that all layers share, an LSTM cell whose state goes on from layer to layer, and
    projection to the number of filters. The network is not called: it is written into
    a graph, layer by layer, so that the state is a value of the graph like any other.
    It belongs to one batch in one pass and is kept nowhere.

    Parameters
    ----------
    kind : {"recurrent", "independent", "global"}
        ``"independent"``: tanh in place of the cell, so that no layer knows of another.
        ``"global"``: the gates are parameters, whatever the example.
    channels : sequence of (int, int)
        Input channels and filters of each layer.
    width : int
        The common width, and that of the cell.
    """

    def __init__(
        self, kind: str, channels: Sequence[tuple[int, int]], width: int
    ) -> None:
        super().__init__()
        self.kind = kind
        if kind == "global":
            policies = [GlobalPolicy(n_out, width) for _, n_out in channels]
            self.outputs = nn.ModuleList(policies)
            return
        self.inputs = nn.ModuleList(nn.Linear(n_in, width) for n_in, _ in channels)
        self.outputs = nn.ModuleList(nn.Linear(width, n_out) for _, n_out in channels)
        if kind == "recurrent":
            self.cell = nn.LSTMCell(width, width)

    def insert(
        self, graph: fx.Graph, name: str, layer: int, x: fx.Node, state: fx.Node | None
    ) -> tuple[fx.Node, fx.Node | None]:
        """Append a layer's gates to a graph.

        Parameters
        ----------
        graph : torch.fx.Graph
        name : str
            Of this module in the network that the graph runs.
        layer : int
            Which one, from 0.
        x : torch.fx.Node
            Its input, of shape (n, c, h, w).
        state : torch.fx.Node or None
            The cell's state after the layer before, None for the first.

        Returns
        -------
        gate : torch.fx.Node
            Of shape (n, filters).
        state : torch.fx.Node or None
            After this layer; None but for recurrent gates.
        """
        seen = x
        if self.kind != "global":
            pooled = graph.call_function(pool, (x,))
            seen = graph.call_module(f"{name}.inputs.{layer}", (pooled,))
        if self.kind == "independent":
            seen = graph.call_function(torch.tanh, (seen,))
        if self.kind == "recurrent":
            before = () if state is None else (state,)
            state = graph.call_module(f"{name}.cell", (seen, *before))
            seen = graph.call_function(_hidden, (state,))
        logits = graph.call_module(f"{name}.outputs.{layer}", (seen,))
        return graph.call_function(threshold, (logits,)), state


def _hidden(state: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return state[0]
