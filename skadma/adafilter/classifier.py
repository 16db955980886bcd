"""AdaFilterClassifier: CNNClassifier that fine-tunes filters example by example."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from ..classifier import CNNClassifier
from ..features.adapter import cnn_adapter
from ..networks import PretrainedNetwork
from .network import AdaFilterNetwork, GateOutputs


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
    backbone, weights, n_frozen_layers, source_classes, image_size, image_shape
    reduced_decoding, value_range, engine, precision, training, batch_norm, lr, head_lr
    optimizer, criterion, max_epochs, batch_size, scan_batch_size, callbacks
    train_split, augment, warm_start, classes, class_weight, on_bad_image, net_params
    memory, device, verbose, random_state
        See :class:`~skadma.CNNClassifier`. The backbone needs a convolution behind the
        frozen layers, other than the last layer, and `training` is "fine-tune".

    Attributes
    ----------
    classes_, multilabel_, net_, source_network_, n_frozen_, value_range_, n_labels_
    random_state_, n_features_in_
        See :class:`~skadma.CNNClassifier`.

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
        # Gates choose between two networks, one of which must be fine-tuned.
        "training": [StrOptions({"fine-tune"})],
    }

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
        n_filters = [conv.out_channels for conv in network.branch.convolutions]
        total, n_images = np.zeros(sum(n_filters)), 0
        adapter = replace(cnn_adapter(self), adapted=GateOutputs(network))
        for batch in adapter.iter_outputs(X, [-1], progress="images"):
            (gates,) = batch.adapted.values()
            total += gates.sum(0).cpu().numpy()
            n_images += len(batch.indices)
        if not n_images:
            raise ValueError("None of the images can be decoded.")
        shares = np.split(total / n_images, np.cumsum(n_filters)[:-1])
        return {
            name: float(of_layer.mean())
            for name, of_layer in zip(network.gated_layers, shares, strict=True)
        }

    def _new_network(
        self, source: PretrainedNetwork, n_classes: int, n_frozen: int
    ) -> AdaFilterNetwork:
        update_batch_norm = self.batch_norm == "update"
        return AdaFilterNetwork(source, n_classes, n_frozen, update_batch_norm)
