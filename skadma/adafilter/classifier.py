"""AdaFilterClassifier: CNNClassifier that fine-tunes filters example by example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import fx, nn

from ..classifier import CNNClassifier
from ..features.adapter import cnn_adapter
from ..networks import PretrainedNetwork
from ..networks.graph import NetworkGraph
from .network import KINDS, AdaFilterNetwork


class AdaFilterClassifier(CNNClassifier):
    r"""A CNNClassifier with a gate per image and filter: pretrained or fine-tuned [1]_.

    Every convolution behind the frozen layers has two sets of filters, the pretrained
    ones S, which stay as they are, and the fine-tuned ones F, which start as copies.
    For each image and each output channel a gate selects one of them,

    .. math:: x_{i+1} = G_i(x_i) F_i(x_i) + (1 - G_i(x_i)) S_i(x_i), \quad
              G_i(x_i) \in \{0, 1\}.

    The gates of all layers come from one recurrent network, which is trained with F
    and the new last layer by the straight-through gradient. A batch norm behind a
    convolution exists twice as well, once for either set of filters.

    Everything else is as in :class:`~skadma.CNNClassifier`. The gates are trained with
    `head_lr`, the learning rate of the new last layer.

    Parameters
    ----------
    backbone : str or callable, default="resnet18"
        See :class:`~skadma.CNNClassifier`. It needs a convolution behind the frozen
        layers, other than the last layer.
    gates : {"recurrent", "independent", "global"}, default="recurrent"
        ``"recurrent"``: by an LSTM cell whose state goes from layer to layer.
        ``"independent"``: each layer's gates depend on its own input only.
        ``"global"``: one policy for all images. The latter two are for comparison.
    gated_batch_norm : bool, default=True
        Whether each set of filters has a batch norm of its own, the pretrained
        filters' with the pretrained scale and shift. If not, the one that there is
        normalises the mixture, and is fine-tuned.
    gate_width : int, default=128
        Width of the recurrent network.
    weights, n_frozen_layers, source_classes, image_size, image_shape, reduced_decoding
    value_range, engine, precision, batch_norm, lr, head_lr, optimizer, criterion
    max_epochs, batch_size, scan_batch_size, callbacks, train_split, augment, warm_start
    classes, class_weight, on_bad_image, net_params, memory, device, verbose
    random_state
        See :class:`~skadma.CNNClassifier`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted; with several per image, in the order of y's columns.
    multilabel_ : bool
        Whether an image has any number of labels instead of one.
    net_ : skorch.NeuralNetClassifier
        The net; ``net_.module_`` is the network.
    source_network_ : PretrainedNetwork
        The pretrained network, unchanged.
    n_frozen_ : int
        Number of frozen layers.
    value_range_ : (float, float) or None
        Values that become black and white in images of more than 8 bits.
    n_labels_ : int
        How many labelled images the network was last fitted with;
        ``partial_fit`` adds its own.
    random_state_ : RandomState
    n_features_in_ : int
        Only where `X` is 2-D.

    References
    ----------
    .. [1] Guo, Li, Wang & Rosing, AdaFilter: Adaptive Filter Fine-Tuning for Deep
       Transfer Learning, AAAI 2020, arXiv 1911.09659.

    Examples
    --------
    >>> import numpy as np
    >>> from skadma import AdaFilterClassifier
    >>> X = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    >>> clf = AdaFilterClassifier("resnet18", weights=None, image_size=32, max_epochs=1)
    >>> clf.fit(X, ["ok", "crack"] * 3).predict_proba(X).shape
    (6, 2)
    >>> len(clf.gate_usage(X))
    11
    """

    _parameter_constraints = {
        **CNNClassifier._parameter_constraints,
        "gates": [StrOptions(set(KINDS))],
        "gated_batch_norm": ["boolean"],
        "gate_width": [Interval(Integral, 1, None, closed="left")],
    }

    _params_of_network = (
        *CNNClassifier._params_of_network,
        *("gates", "gated_batch_norm", "gate_width"),
    )

    def __init__(
        self,
        backbone: str | Callable[[], nn.Module] = "resnet18",
        *,
        gates: str = "recurrent",
        gated_batch_norm: bool = True,
        gate_width: int = 128,
        weights: str | Path | None = "DEFAULT",
        n_frozen_layers: str | int = "paper",
        source_classes: str | bool = "auto",
        image_size: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        reduced_decoding: bool = False,
        value_range: tuple[float, float] | None = None,
        engine: str = "torch",
        precision: str = "float32",
        batch_norm: str = "fixed",
        lr: float = 1e-4,
        head_lr: float = 1e-3,
        optimizer: type = torch.optim.AdamW,
        criterion: type = nn.CrossEntropyLoss,
        max_epochs: int = 20,
        batch_size: int = 16,
        scan_batch_size: int | None = None,
        callbacks: list[Any] | None = None,
        train_split: Callable[..., Any] | None = None,
        augment: str | Callable[[torch.Tensor], torch.Tensor] | None = None,
        warm_start: bool = False,
        classes: ArrayLike | None = None,
        class_weight: dict[str, Any] | str | None = None,
        on_bad_image: str = "raise",
        net_params: dict[str, Any] | None = None,
        memory: Any = None,
        device: str = "auto",
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        given = locals()
        theirs = {n: given[n] for n in CNNClassifier._get_param_names() if n in given}
        super().__init__(**theirs)
        self.gates = gates
        self.gated_batch_norm = gated_batch_norm
        self.gate_width = gate_width

    def gate_usage(self, X: Any) -> dict[str, float]:
        """Share of fine-tuned filters in each layer, on average over images.

        Parameters
        ----------
        X : images

        Returns
        -------
        dict of str to float
            Shares in [0, 1], by the convolutions' names in the order in which they
            run. Images that cannot be decoded are left out with
            ``on_bad_image="skip"``.

        Raises
        ------
        ValueError
            If no image can be decoded.
        """
        check_is_fitted(self)
        network: AdaFilterNetwork = self.net_.module_
        total, n_images = np.zeros(sum(network.branch.n_filters)), 0
        adapter = cnn_adapter(self).with_network(_GatesOnly(network))
        for batch in adapter.iter_outputs(X, [-1], progress="images"):
            (gates,) = batch.adapted.values()
            total += gates.sum(0).cpu().numpy()
            n_images += len(batch.indices)
        if not n_images:
            raise ValueError("None of the images can be decoded.")
        ends = np.cumsum(network.branch.n_filters)
        shares = np.split(total / n_images, ends[:-1])
        return {
            layer.name: float(of_layer.mean())
            for layer, of_layer in zip(network.gated_layers, shares, strict=True)
        }

    def _new_network(
        self, source: PretrainedNetwork, n_classes: int, n_frozen: int
    ) -> AdaFilterNetwork:
        return AdaFilterNetwork(
            source,
            n_classes,
            n_frozen,
            self.batch_norm == "update",
            gates=self.gates,
            gated_batch_norm=self.gated_batch_norm,
            gate_width=self.gate_width,
        )


class _GatesOnly(nn.Module):
    """A network for feature extraction whose output is the gates of another one."""

    def __init__(self, network: AdaFilterNetwork) -> None:
        super().__init__()
        self.network = network

    def inference_subgraph(
        self, graph: NetworkGraph, ends: Sequence[fx.Node], start: fx.Node
    ) -> fx.GraphModule:
        return self.network.gates_subgraph(graph, start)
