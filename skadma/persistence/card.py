"""The model card: a description of an exported model, as Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..networks.engines import TORCH
from ..networks.registry import is_weights_file


@dataclass(frozen=True)
class CardFacts:
    """Contents of the card that the model does not hold.

    `n_labels` counts labelled images by class. `data` and `choice` are sentences about
    the images and how those to label were chosen. `curve` has, per query, the labels
    before it, the images answered, and those predicted right. `calibration` is Markdown
    about the probabilities, `estimate` a `skadma.evaluation.Estimate` of the accuracy.
    """

    title: str
    n_labels: Mapping[str, int]
    data: Sequence[str] = ()
    choice: Sequence[str] = ()
    curve: Sequence[tuple[int, int, int]] = ()
    calibration: str | None = None
    estimate: Any = None


def make_card(
    estimator: Any, facts: CardFacts, *, onnx: bool = False, features: str | None = None
) -> str:
    """Write the card of a fitted classifier: Markdown with YAML front matter.

    `features` is the name of the embedding that a probe takes.
    """
    labels = [str(label) for label in estimator.classes_]
    n_labels = {name: int(n) for name, n in facts.n_labels.items()}
    classes = _table(
        ("class", "labelled images"),
        [(name, n_labels.get(name, 0)) for name in labels],
    )
    if estimator.multilabel_:
        classes += (
            "\n\nAn image has any number of these labels, also none: each that is more "
            "probable than not. Their probabilities do not sum to 1."
        )
    kind, more = "probe" if features else "model", {}
    if features is None:
        steps = enumerate(_preprocessing_steps(estimator), 1)
        text = "\n".join(f"{n}. {step}" for n, step in steps)
        more = {"network": _network(estimator), "preprocessing": text}
    template = (files("skadma") / "data" / f"{kind}_card.md").read_text("utf-8")
    return template.format(
        **more,
        # JSON is YAML, and quotes whatever a name may hold.
        tags=json.dumps(["image-classification", "active-learning", *["onnx"] * onnx]),
        base_model=json.dumps(features or estimator.source_network_.name),
        labels=json.dumps(labels),
        n_labels=json.dumps(n_labels),
        title=_plain(facts.title),
        classes=classes,
        data=_listed(facts.data) or "Not recorded.",
        choice=_listed(facts.choice) or "Not recorded.",
        curve=_curve(facts.curve),
        accuracy=_accuracy(facts.estimate, estimator.multilabel_),
        calibration=facts.calibration
        or "Not measured. Take the probabilities for an order of the images, not for "
        "how often the model is right.",
        cls=type(estimator).__name__,
        onnx=" Without skadma: `model.onnx` and `preprocessing.json`, with 30 lines of "
        "NumPy, Pillow and onnxruntime (docs/persistence.md of skadma)."
        if onnx
        else "",
    )


def describe_preprocessing(estimator: Any) -> dict[str, Any]:
    """Describe all steps from an image file to the probabilities of ``model.onnx``."""
    preprocessing = estimator.source_network_.preprocessing
    side = preprocessing.image_size
    return {
        **asdict(preprocessing),
        "labels": estimator.classes_.tolist(),
        "input": {"name": "pixels", "dtype": "uint8", "shape": ["n", 3, side, side]},
        "output": {"name": "probabilities", "dtype": "float32"},
        "steps": _preprocessing_steps(estimator),
    }


def _preprocessing_steps(estimator: Any) -> list[str]:
    """Describe resizing and normalising, to the pixel."""
    p = estimator.source_network_.preprocessing
    mean, std = ([round(v, 6) for v in values] for values in (p.mean, p.std))
    side, short = p.image_size, p.resize_size
    black, white = p.value_range or (0, 65535)
    reduced = (
        "A JPEG file is decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 of its size "
        f"that leaves both sides at least {p.least} pixels, by Pillow's "
        f"`Image.draft(None, ({p.least}, {p.least}))`."
    )
    by_pillow = f"by Pillow's `Image.resize` with the {p.interpolation} filter"
    resized = (
        f"The image is resized to {short} x {short} pixels, {by_pillow}."
        if p.crop_mode == "squash"
        else f"The shorter side is resized to {short} pixels, the longer one to "
        f"int({short} * longer / shorter), {by_pillow}. An image whose shorter side "
        "has that length is left alone."
    )
    return [
        *([reduced] if p.reduced else []),
        "The image is turned by its EXIF orientation.",
        f"Values of more than 8 bits are scaled so that {black} becomes 0 and {white} "
        "255, clipped, and rounded to 8 bits; any other mode "
        "becomes RGB as by Pillow's `convert('RGB')`. Grey fills all three channels.",
        resized,
        f"The centre of {side} x {side} pixels is cropped; its left edge is at "
        f"round((width - {side}) / 2), its upper edge likewise, and halves are rounded "
        "to the even number.",
        "In the network, and in model.onnx, which takes the uint8 pixels (n, 3, "
        f"height, width): (pixel / 255 - mean) / std with mean {mean} and std {std}.",
        f"The scores' {'sigmoid' if estimator.multilabel_ else 'softmax'} is the "
        "probabilities, in the order of `labels`.",
    ]


def _network(estimator: Any) -> str:
    source, weights = estimator.source_network_, estimator.weights
    if weights is not None and is_weights_file(weights):
        weights = Path(weights).name
    trained = (
        "the last one is fitted in closed form (a discriminant analysis and a ridge "
        "regression)"
        if estimator.training == "probe"
        else f"{estimator.max_epochs} epochs, learning rates {estimator.lr:g} and, of "
        f"the new last layer, {estimator.head_lr:g}"
    )
    lines = [
        f"Backbone {source.name}, pretrained weights {weights}, fingerprint "
        f"{source.fingerprint}.",
        f"{estimator.n_frozen_} of {len(source.graph.layers)} layers frozen; "
        f"{trained}.",
    ]
    engine = source.engine
    if engine != TORCH:
        lines.append(
            f"By skadma the frozen layers are run by {engine.name} in "
            f"{engine.precision}, so its probabilities differ a little from those of "
            "an ONNX file."
        )
    return _listed(lines)


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _curve(rounds: Sequence[tuple[int, int, int]]) -> str:
    if not rounds:
        return "No query with a trained model has been answered yet."
    rows = [(n, m, r, f"{r / m:.0%}") for n, m, r in rounds]
    return (
        "Of the images of each query, the share that the model at the time had right. "
        "They were chosen, mostly for being hard: this is no estimate of the accuracy "
        "on all images.\n\n" + _table(("labels", "answered", "right", "share"), rows)
    )


def _accuracy(found: Any, several: bool) -> str:
    if several:
        return "Not measured."
    if found is None:
        return (
            "Not measured. `skadma evaluate` measures it, with some 50 labels that are "
            "drawn for that and not trained with."
        )
    share = f"{found.confidence:.0%}"
    return (
        f"{found.value:.1%} ({share} interval: {found.low:.1%} to {found.high:.1%}) on "
        f"the {found.n_population} images of the pool that had no label when the audit "
        f"was drawn, or on similar ones, by {found.n_labels} labels that were drawn "
        f"for it ({found.method}) and not trained with.\n\n"
        + _table(
            ("class", "found (recall)", f"{share} interval", "labels"),
            [
                (
                    name,
                    "?" if math.isnan(recall.value) else f"{recall.value:.1%}",
                    f"{recall.low:.1%} to {recall.high:.1%}",
                    recall.n_labels,
                )
                for name, recall in found.recall.items()
            ],
        )
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(_plain(str(cell)) for cell in line) + " |" for line in lines
    )


def _plain(text: str) -> str:
    """Escape what Markdown would take for markup."""
    text = " ".join(text.split())
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return text
