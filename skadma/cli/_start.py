"""``skadma start``, and what ``skadma label`` shares with it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._options import add_campaign_command, positive

if TYPE_CHECKING:
    from ..labelling.campaign import Campaign


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    start = add_campaign_command(
        commands, "start", _start, "start to label a folder of images", pool=False
    )
    start.add_argument("pool", type=Path, help="folder of images, with subfolders")
    start.add_argument("--classes", nargs="+", required=True, help="all labels")
    add_start(start)
    start.add_argument(
        "--labels", type=Path, help="CSV with labels there are already: path, label"
    )
    start.add_argument(
        "--partial",
        action="store_true",
        help="leave out rows of --labels that cannot be taken, instead of starting no "
        "campaign",
    )


def add_start(parser: argparse._ActionsContainer) -> None:
    """Add what a campaign can be started with."""
    parser.add_argument(
        "--backbone", default="efficientnet_lite0", help="default: %(default)s"
    )
    parser.add_argument(
        "--weights",
        default="DEFAULT",
        help="name of weights or a .safetensors or .pth file; 'none': random",
    )
    parser.add_argument(
        "--strategy",
        default="UncertaintyHerding",
        help="a class of skadma.strategies, docs/strategies.md lists them "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--centers",
        type=Path,
        help="file of source centres for ADMA (default: those in the package)",
    )
    parser.add_argument(
        "-n",
        dest="n_instances",
        type=positive,
        default=20,
        help="labels in a round (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--warm-start",
        action="store_true",
        help="fine-tune the model of the round before, as the paper does, "
        "instead of the pretrained one",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="parameters, such as estimator__image_size=128 strategy__layer=-3",
    )


def _start(options: argparse.Namespace) -> None:
    labels = {"labels": options.labels, "partial": options.partial}
    with start_campaign(options, options.pool, **labels) as campaign:
        print(campaign.status())


def start_campaign(options: argparse.Namespace, pool: Path, **labels: Any) -> Campaign:
    """Start the campaign that the options describe."""
    from ..classifier import CNNClassifier  # takes seconds, --help should not
    from ..labelling.campaign import Campaign

    estimator = CNNClassifier(
        options.backbone, weights=None if options.weights == "none" else options.weights
    )
    strategy = _strategy(options.strategy, options.centers)
    targets = {"estimator": estimator, "strategy": strategy}
    for item in options.set:
        name, _, value = item.partition("=")
        target, _, parameter = name.partition("__")
        if target not in targets or not parameter:
            raise ValueError(
                f"--set {item}: it is estimator__NAME=VALUE or strategy__NAME=VALUE."
            )
        targets[target].set_params(**{parameter: _value(value)})
    return Campaign.create(
        options.campaign,
        pool,
        options.classes,
        estimator,
        strategy,
        n_instances=options.n_instances,
        warm_start=options.warm_start,
        random_state=options.seed,
        who=options.who,
        wait=options.wait,
        verbose=True,
        **labels,
    )


def _strategy(name: str, centers: Path | None) -> Any:
    from ..centers import SourceCenters
    from ..labelling.campaign.settings import STRATEGIES

    known = {key.lower(): cls for key, cls in STRATEGIES.items()}
    cls = known.get(name.lower().replace("-", "").replace("_", ""))
    if cls is None:
        raise ValueError(
            f"unknown strategy {name!r}; there are {', '.join(sorted(STRATEGIES))}."
        )
    if cls.__name__ == "ADMA":
        return cls(None if centers is None else SourceCenters.load(centers))
    if centers is not None:
        raise ValueError(f"{cls.__name__} takes no --centers.")
    return cls()


def _value(text: str) -> Any:
    """A value in JSON, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
