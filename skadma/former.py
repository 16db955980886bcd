"""Methods of CNNClassifier from when strategies had no interface of their own."""

from __future__ import annotations

from typing import Any

from sklearn.utils import deprecated

from .cnn_view import CNNView

_INSTEAD = "use skadma.view.view_of(estimator).{} instead; it will be removed in 0.3."


class FormerMethods:
    """What is now asked of :class:`~skadma.cnn_view.CNNView`, for two more releases."""

    @deprecated(_INSTEAD.format("scan"))
    def scan(self, X: Any, *args: Any, **kwargs: Any) -> Any:
        """Pass over images once, batch by batch."""
        return CNNView(self).scan(X, *args, **kwargs)

    @deprecated(_INSTEAD.format("scan_prepared"))
    def scan_prepared(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Scan what is already as a network takes it."""
        return CNNView(self).scan_prepared(inputs, *args, **kwargs)

    @deprecated(_INSTEAD.format("scan_windows"))
    def scan_windows(self, X: Any, *args: Any, **kwargs: Any) -> Any:
        """Scan parts of images for the scores that the adapted network gives them."""
        return CNNView(self).scan_windows(X, *args, **kwargs)

    @deprecated(_INSTEAD.format("collect"))
    def collect(self, X: Any, *args: Any, **kwargs: Any) -> Any:
        """Scan images for whole arrays of layers' outputs."""
        return CNNView(self).collect(X, *args, **kwargs)

    @deprecated(_INSTEAD.format("proba_of"))
    def proba_of(self, scores: Any) -> Any:
        """Class probabilities of class scores."""
        return CNNView(self).proba_of(scores)

    @deprecated(_INSTEAD.format("image_dataset"))
    def image_dataset(self, X: Any, *args: Any, **kwargs: Any) -> Any:
        """Open images as the network takes them."""
        return CNNView(self).image_dataset(X, *args, **kwargs)

    @deprecated(_INSTEAD.format("readable"))
    def readable(self, X: Any) -> Any:
        """Tell which images can be decoded."""
        return CNNView(self).readable(X)

    @deprecated(_INSTEAD.format("takes_rows"))
    def takes_rows(self, X: Any) -> Any:
        """Tell whether `X` is a table for a callable's network, not images."""
        return CNNView(self).takes_rows(X)
