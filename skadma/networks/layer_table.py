"""The ordered table of a network's layers, as a list that prints well."""

from __future__ import annotations

from typing import NamedTuple

from .pretrained import PretrainedNetwork


class LayerRow(NamedTuple):
    """One weighted layer.

    Attributes
    ----------
    position : int
        From 0, in the order of the main path.
    name : str
        Name of the module in the network.
    output_shape : tuple of int
        Shape, for one image, of what the next weighted layer receives.
    frozen : bool
        Whether fine-tuning leaves it as it is.
    """

    position: int
    name: str
    output_shape: tuple[int, ...]
    frozen: bool


class LayerTable(list[LayerRow]):
    """List of :class:`LayerRow`; ``print`` shows it as a table."""

    def __repr__(self) -> str:
        n = len(self)
        rows = [("position", "", "name", "output shape", "")]
        for row in self:
            shape = " x ".join(str(side) for side in row.output_shape)
            rows.append(
                (
                    str(row.position),
                    str(row.position - n),
                    row.name,
                    shape,
                    "frozen" if row.frozen else "",
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if i < 2 else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )

    __str__ = __repr__


def layer_table(source: PretrainedNetwork, n_frozen: int, n_classes: int) -> LayerTable:
    """Build the table of a network of which `n_frozen` layers are frozen.

    Parameters
    ----------
    source : PretrainedNetwork
    n_frozen : int
    n_classes : int
        Outputs of the last layer.
    """
    shapes = source.output_shapes[:-1] + [(n_classes,)]
    return LayerTable(
        LayerRow(i, layer.name, shape, i < n_frozen)
        for i, (layer, shape) in enumerate(
            zip(source.graph.layers, shapes, strict=True)
        )
    )
