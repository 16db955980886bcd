"""scikit-learn's callbacks, where the installed release has them.

They came with scikit-learn 1.9 and are experimental: they may change without the usual
deprecation. With older releases a learner has no ``set_callbacks``.
"""

from __future__ import annotations

from typing import Any

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupportMixin
    from sklearn.callback import with_callbacks as with_callbacks

    CALLBACKS_AVAILABLE = True
except ImportError:
    CALLBACKS_AVAILABLE = False

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing, with an older scikit-learn."""

    def with_callbacks(method: Any) -> Any:
        """Return a method as it is."""
        return method
