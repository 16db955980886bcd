"""Parameters of skorch's net as parameters of the estimator around it."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator

_PREFIX = "net_params__"


class NetParams(BaseEstimator):
    """Lets single entries of the dict `net_params` be set and searched."""

    net_params: dict[str, Any] | None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; with `deep`, the entries of `net_params` too."""
        params = super().get_params(deep=deep)
        if deep and isinstance(self.net_params, dict):
            params |= {_PREFIX + k: v for k, v in self.net_params.items()}
        return params

    def set_params(self, **params: Any) -> NetParams:
        """Set parameters, ``net_params__<name>`` for an entry of `net_params`."""
        entries = {k: params.pop(k) for k in list(params) if k.startswith(_PREFIX)}
        super().set_params(**params)
        if entries:
            named = {k.removeprefix(_PREFIX): v for k, v in entries.items()}
            self.net_params = {**(self.net_params or {}), **named}
        return self
