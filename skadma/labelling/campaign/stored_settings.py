"""A campaign's settings as its log has them: plain values, read without a model."""

from __future__ import annotations

from typing import Any

from .class_names import check_classes
from .embeddings import is_of_table
from .event_log import CampaignError

DEFAULT_ESTIMATOR: dict[str, Any] = {
    "augment": None, "backbone": "layers/efficientnet_lite0", "batch_norm": "fixed",
    "batch_size": 16, "callbacks": None, "class_weight": None,
    "criterion": "CrossEntropyLoss", "device": "auto", "engine": "torch",
    "head_lr": 0.001, "image_shape": None, "image_size": None, "lr": 0.0001,
    "max_epochs": 20, "n_frozen_layers": "paper", "net_params": None,
    "optimizer": "AdamW", "precision": "float32", "random_state": None,
    "reduced_decoding": False, "scan_batch_size": None, "source_classes": "auto",
    "train_split": None, "training": "probe", "value_range": None, "weights": "DEFAULT",
}  # fmt: skip
DEFAULT_STRATEGY: dict[str, Any] = {
    "class": "UncertaintyHerding",
    "params": {
        "features": "initial", "layer": -2, "normalize": True, "random_state": None
    },
}  # fmt: skip
"""What a campaign is started with unless something else is given, described."""
OF_NETWORKS = ("ADMA", "AIFT")
"""Strategies that ask more of the network than its outputs for the pool."""


_MOST_ROWS = 20_000
"""Images of which a probe keeps all rows in memory, a few hundred megabytes."""


def learns_at_once(settings: dict[str, Any], n_images: int) -> bool:
    """Whether the model is a probe of outputs that never change: a label takes ms."""
    strategy = settings["strategy"]
    return is_of_table(settings) or (
        n_images <= _MOST_ROWS
        and settings["estimator"].get("training") == "probe"
        and strategy.get("class") not in OF_NETWORKS
        and strategy.get("params", {}).get("layer", -2) == -2
    )


def check_settings(settings: dict[str, Any]) -> None:
    """Refuse settings that no campaign has, whoever wrote them."""
    kinds = {
        "pool": str,
        "classes": list,
        "estimator": dict,
        "strategy": dict,
        "n_instances": int,
        "warm_start": bool,
        "random_state": int,
        "several_labels": bool,
    }
    settings = {"several_labels": False, **settings}
    for name, kind in kinds.items():
        if type(settings.get(name)) is not kind:
            raise CampaignError(
                f"The campaign cannot be opened: its setting {name!r} is "
                f"{settings.get(name)!r}."
            )
    if not all(isinstance(name, str) for name in settings["classes"]):
        raise CampaignError(f"The classes {settings['classes']} are no texts.")
    check_classes(settings["classes"], settings["several_labels"])
    n_instances, random_state = settings["n_instances"], settings["random_state"]
    if n_instances < 1 or not 0 <= random_state < 2**32:
        raise CampaignError(
            f"n_instances={n_instances} must be at least 1, random_state="
            f"{random_state} from 0 to {2**32 - 1}."
        )
