"""``skadma start``, ``query``, ``teach`` and corrections: they change a campaign."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._types import positive

if TYPE_CHECKING:
    from ..labelling.campaign import Campaign, TeachResult

FOLDER = Path("skadma-campaign")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the subcommands."""
    start = _command(commands, "start", _start, "start to label a folder of images")
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
    query = _command(commands, "query", _query, "choose the images to label next")
    query.add_argument(
        "-n", dest="n_instances", type=positive, help="how many (default: as started)"
    )
    add_output(query, "label file to fill in")
    teach = _command(commands, "teach", _teach, "take a label file, and train")
    teach.add_argument(
        "labels",
        type=Path,
        help="CSV with the columns path and label, or Label Studio's JSON",
    )
    teach.add_argument(
        "--partial",
        action="store_true",
        help="leave out rows that cannot be taken, instead of refusing all",
    )
    teach.add_argument(
        "--blind",
        action="store_true",
        help="they are answers to 'skadma repeats': they change no label",
    )
    _add_later(teach)
    relabel = _command(commands, "relabel", _relabel, "correct a label")
    relabel.add_argument("image")
    relabel.add_argument("label")
    _add_later(relabel)
    for name, what in (
        ("skip", "leave images aside until no others are left"),
        ("cant-tell", "say that images cannot be labelled by looking at them"),
        ("not-an-image", "say that files are none of the task's images"),
    ):
        mark = _command(commands, name, _mark, what)
        mark.add_argument("images", nargs="+")
    _command(commands, "undo", _undo, "take the last decisions back")


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add what all commands about a campaign take."""
    parser.add_argument(
        "--campaign",
        type=Path,
        default=FOLDER,
        metavar="FOLDER",
        help="the campaign's folder (default: %(default)s)",
    )
    parser.add_argument("--who", help="your name in the log (default: the user's)")
    parser.add_argument(
        "--wait",
        type=float,
        default=60,
        metavar="SECONDS",
        help="how long to wait for another process (default: %(default)s)",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="say what happens in each phase"
    )


def add_start(parser: argparse.ArgumentParser) -> None:
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


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the options for a file to write."""
    parser.add_argument("-o", "--out", type=Path, required=True, help=what)
    parser.add_argument(
        "--overwrite", action="store_true", help="write over a file that is there"
    )


def open_campaign(options: argparse.Namespace) -> Campaign:
    """Open the campaign that the options mean."""
    from ..labelling.campaign import (
        Campaign,  # its imports take seconds, --help should not
    )

    return Campaign.open(
        options.campaign,
        pool=options.pool,
        pools=options.pools,
        who=options.who,
        wait=options.wait,
    )


def _command(
    commands: argparse._SubParsersAction, name: str, run: Any, what: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what, description=what.capitalize() + ".")
    add_common(parser)
    if name != "start":
        add_pool(parser)
    parser.set_defaults(run=run)
    return parser


def add_pool(parser: argparse.ArgumentParser) -> None:
    """Add the option for pools that moved: `pool`, the first, and `pools`, by name."""
    parser.set_defaults(pools={})
    parser.add_argument(
        "--pool",
        action=_Pool,
        metavar="[NAME=]FOLDER",
        help="where the images are, if they moved; NAME: those of a pool that was "
        "added. More than once for several",
    )


class _Pool(argparse.Action):
    """Tell a pool's name from the folder."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        options: argparse.Namespace,
        value: Any,
        option: str | None = None,
    ) -> None:
        name, equals, folder = value.partition("=")
        if equals and not Path(value).is_dir():
            options.pools = {**options.pools, name: Path(folder)}
        else:
            options.pool = Path(value)


def _add_later(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--later",
        action="store_true",
        help="leave training to the next query",
    )


def _start(options: argparse.Namespace) -> None:
    with start_campaign(options) as campaign:
        print(campaign.status())


def start_campaign(options: argparse.Namespace) -> Campaign:
    """Start the campaign that the options mean."""
    from ..classifier import CNNClassifier
    from ..labelling.campaign import Campaign

    estimator = CNNClassifier(
        options.backbone,
        weights=None if options.weights == "none" else options.weights,
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
        options.pool,
        options.classes,
        estimator,
        strategy,
        n_instances=options.n_instances,
        warm_start=options.warm_start,
        random_state=options.seed,
        who=options.who,
        wait=options.wait,
        labels=getattr(options, "labels", None),
        partial=getattr(options, "partial", False),
        verbose=True,
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
    try:
        return json.loads(text)
    except ValueError:
        return text


def _query(options: argparse.Namespace) -> None:
    from .._utils.atomic import new_file
    from .._utils.tables import write_table

    new_file(options.out, overwrite=options.overwrite)  # before minutes of work
    with open_campaign(options) as campaign:
        proposals = campaign.query(options.n_instances)
    write_table(
        options.out,
        ("path", "label", "guess", "confidence", "score", "sha256"),
        (
            (p.path, "", p.guess or "", _short(p.confidence), _short(p.score), p.sha256)
            for p in proposals
        ),
    )
    print(
        f"{len(proposals)} images to label: fill in the column 'label' of "
        f"{options.out}, then: skadma teach {options.out}"
    )


def _short(number: float | None) -> str:
    return "" if number is None else f"{number:.6g}"


def _teach(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        if options.blind:
            taught = campaign.record_repeats(options.labels, partial=options.partial)
            print(f"Safe: {taught.n_repeats} blind answers.", flush=True)
            _tell_refused(taught)
            return
        taught = campaign.teach(options.labels, partial=options.partial, train=False)
        _finish(campaign, taught, options.later)


def _relabel(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        taught = campaign.relabel(options.image, options.label, train=False)
        _finish(campaign, taught, options.later)


def _mark(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        marks = dict.fromkeys(options.images, f"?{options.command}")
        _finish(campaign, campaign.teach(marks, train=False), True)


def _finish(campaign: Campaign, taught: TeachResult, later: bool) -> None:
    print(
        f"Safe: {taught.n_new} new, {taught.n_changed} changed, {taught.n_same} as "
        "before.",
        flush=True,
    )
    _tell_refused(taught)
    if not later:
        campaign.estimator()


def _tell_refused(taught: TeachResult) -> None:
    for refused in taught.refused:
        print(f"left out: {refused}", flush=True)


def _undo(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        before = campaign.classes, campaign.pools
        images = campaign.undo()
        after = campaign.classes, campaign.pools
    if after != before:
        print(f"Taken back. The classes are {', '.join(after[0])}. The pools are:")
        print("\n".join(f"  {folder}" for folder in after[1].values()))
        return
    print(f"Taken back: the decisions about {len(images)} images.")
    for image in images[:20]:
        print(f"  {image}")
