"""Commands about a campaign: start, label, correct, review, evaluate, export."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._utils.atomic import write_atomically
from .._utils.tables import write_table
from ._options import (
    Commands,
    Options,
    add_command,
    add_features_name,
    add_output,
    add_partial,
    positive,
    prepare_file,
    write_label_file,
)

if TYPE_CHECKING:
    from ..classifier import CNNClassifier
    from ..features.table import EmbeddingTable
    from ..labelling.campaign import Campaign, SuspectLabel, TeachResult
    from ..strategies import QueryStrategy
    from ..training.probe_classifier import ProbeClassifier

_BACKBONE = "efficientnet_lite0"
_USUAL: dict[str, Any] = {
    "backbone": _BACKBONE, "training": None, "weights": "DEFAULT",
    "strategy": "UncertaintyHerding", "centers": None, "warm_start": False, "set": [],
    "features": None,
}  # fmt: skip
"""Options of which Campaign.create knows what they stand for."""


def add_parser(commands: Commands) -> None:
    """Add the commands."""
    _add_start(commands)
    _add_round(commands)
    _add_reading(commands)
    _add_review(commands)
    _add_changes(commands)
    _add_evaluate(commands)
    _add_export_model(commands)


# --- start ----------------------------------------------------------------------------


def _add_start(commands: Commands) -> None:
    what = "start to label a folder of images"
    start = add_command(commands, "start", _status, what, pool=False)
    start.set_defaults(run=_start)
    start.add_argument("pool", type=Path, help="folder of images, with subfolders")
    start.add_argument("--classes", nargs="+", help="all labels")
    add_start_options(start)


def add_start_options(parser: argparse._ActionsContainer) -> None:
    """Add what a campaign can be started with."""
    add = parser.add_argument
    what = "pretrained network (default: %(default)s)"
    add("--backbone", default=_BACKBONE, help=what)
    what = (
        "probe: fit a linear layer to several of the network's layers, in "
        "milliseconds; fine-tune: train its last layers, in minutes (default: probe, "
        "and fine-tune for ADMA, AIFT and --warm-start)"
    )
    add("--training", choices=("probe", "fine-tune"), help=what)
    weights = "name of weights or a .safetensors or .pth file; 'none': random"
    add("--weights", default="DEFAULT", help=weights)
    what = "docs/strategies.md lists them (default: %(default)s)"
    add("--strategy", default="UncertaintyHerding", help=what)
    centers = "file of source centres for ADMA (default: those in the package)"
    add("--centers", type=Path, help=centers)
    what = "a picture may have several of the labels, or none"
    add("--several-labels", action="store_true", help=what)
    what = "labels in a round (default: %(default)s)"
    add("-n", type=positive, default=20, help=what)
    add("--seed", type=int, default=0, help="default: %(default)s")
    what = "fine-tune the model of the round before, and not the pretrained one"
    add("--warm-start", action="store_true", help=what)
    what = "table of embeddings made elsewhere, in place of a network: .npy, .npz, "
    what += ".parquet, .csv or .json; see docs/training.md"
    add("--features", type=Path, metavar="FILE", help=what)
    add_features_name(add)
    what = "parameters, such as estimator__image_size=128 strategy__layer=-3"
    add("--set", nargs="+", default=[], metavar="NAME=VALUE", help=what)


def _start(options: Options) -> None:
    with start_campaign(options, options.pool) as campaign:
        print(campaign.status())


def is_usual(options: Options) -> bool:
    """Whether nothing is given about the network and the strategy."""
    return all(getattr(options, name) == value for name, value in _USUAL.items())


def start_campaign(options: Options, pool: Path, *, at_once: bool = False) -> Campaign:
    """Start the campaign that the options describe."""
    settle_task(options, pool)
    from ..labelling.campaign import Campaign

    models = (None, None, None) if is_usual(options) else _models(options)
    estimator, strategy, table = models
    return Campaign.create(
        options.campaign,
        pool,
        options.classes,
        estimator,
        strategy,
        features=table,
        n_instances=options.n,
        warm_start=options.warm_start,
        random_state=options.seed,
        several_labels=options.several_labels,
        at_once=at_once,
        who=options.who,
        wait=options.wait,
        verbose=not at_once,
    )


def _models(
    options: Options,
) -> tuple[CNNClassifier | ProbeClassifier, QueryStrategy, EmbeddingTable | None]:
    """Build what the options describe: the estimator, the strategy, embeddings."""
    from ..labelling.campaign.stored_settings import OF_NETWORKS

    strategy = _strategy(options.strategy, options.centers)
    table = None
    if options.features is not None:
        from ..features.table import read_table
        from ..training.probe_classifier import ProbeClassifier

        if options.training or options.warm_start or options.backbone != _BACKBONE:
            raise ValueError(
                "--features takes the place of a network: leave --backbone, --training "
                "and --warm-start out."
            )
        table = read_table(options.features, options.features_name)
        estimator: Any = ProbeClassifier()
    else:
        from ..classifier import CNNClassifier

        fine_tuned = options.warm_start or type(strategy).__name__ in OF_NETWORKS
        training = options.training or ("fine-tune" if fine_tuned else "probe")
        backbone = options.backbone
        if training == "probe" and not backbone.startswith(("layers/", "hf/")):
            backbone = f"layers/{backbone}"
        estimator = CNNClassifier(
            backbone,
            weights=None if options.weights == "none" else options.weights,
            training=training,
        )
    targets = {"estimator": estimator, "strategy": strategy}
    for item in options.set:
        name, _, value = item.partition("=")
        target, _, parameter = name.partition("__")
        if target not in targets or not parameter:
            raise ValueError(
                f"--set {item}: it is estimator__NAME=VALUE or strategy__NAME=VALUE."
            )
        try:
            targets[target].set_params(**{parameter: _value(value)})
        except AttributeError as error:  # optimizer__lr: a class has no parameters
            raise ValueError(
                f"--set {item}: {parameter.partition('__')[0]} has no parameters of "
                "its own."
            ) from error
    return estimator, strategy, table


def settle_task(options: Options, pool: Path) -> None:
    """Refuse what is no folder, and settle the classes, if need be by asking."""
    if not pool.is_dir():
        there = [path.name for path in pool.absolute().parent.iterdir()]
        close = get_close_matches(pool.name, there, 1)
        mean = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"There is no folder {str(pool)!r}.{mean}")
    options.classes = class_names(options.classes or _ask_classes(pool))


def class_names(given: list[str]) -> list[str]:
    """Take names of classes, which commas may separate."""
    names = [part.strip() for text in given for part in text.split(",")]
    names = [name for name in names if name]
    if names != given:
        warnings.warn(f"The classes are taken to be {', '.join(names)}.", stacklevel=2)
    return names


def _ask_classes(pool: Path) -> list[str]:
    """Ask which classes there are, where somebody can answer."""
    folders = [path.name for path in sorted(pool.iterdir()) if path.is_dir()]
    asked = f"Which labels are there, such as {', '.join(folders[:9]) or 'crack, ok'}?"
    if sys.stdin.isatty():
        return [input(f"{asked} ")]
    raise ValueError(f"{asked} Name them with --classes.")


def _strategy(name: str, centers: Path | None) -> Any:
    from .. import strategies
    from ..labelling.campaign.settings import STRATEGIES

    known = {key.lower(): key for key in STRATEGIES}
    found = known.get(name.lower().replace("-", "").replace("_", ""))
    if found is None:
        raise ValueError(
            f"unknown strategy {name!r}; there are {', '.join(sorted(STRATEGIES))}."
        )
    cls = getattr(strategies, found)
    if found == "ADMA":
        from ..centers import SourceCenters

        return cls(None if centers is None else SourceCenters.load(centers))
    if centers is not None:
        raise ValueError(f"{found} takes no --centers.")
    return cls()


def _value(text: str) -> Any:
    """A value in JSON, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


# --- a round: query, teach, corrections, undo ----------------------------------------


def _add_round(commands: Commands) -> None:
    query = add_command(commands, "query", _query, "choose the images to label next")
    query.add_argument("-n", type=positive, help="how many (default: as started)")
    add_output(query, "label file to fill in")
    teach = add_command(commands, "teach", _teach, "take a label file, and train")
    what = "CSV with the columns path and label, or Label Studio's JSON"
    teach.add_argument("labels", type=Path, help=what)
    add_partial(teach)
    what = "they are answers to 'skadma repeats': they change no label"
    teach.add_argument("--blind", action="store_true", help=what)
    what = "leave training to the next query"
    teach.add_argument("--later", action="store_true", help=what)
    relabel = add_command(commands, "relabel", _relabel, "correct a label")
    relabel.add_argument("image")
    relabel.add_argument("label")
    for name, what in (
        ("skip", "leave images aside until no others are left"),
        ("cant-tell", "say that images cannot be labelled by looking at them"),
        ("not-an-image", "say that files are none of the task's images"),
    ):
        mark = add_command(commands, name, _mark, what)
        mark.add_argument("images", nargs="+")
    add_command(commands, "undo", _undo, "take the last decisions back")


def _query(campaign: Campaign, options: Options) -> None:
    rows = (
        (p.path, "", p.guess or "", _short(p.confidence), _short(p.score), p.sha256)
        for p in campaign.query(options.n)
    )
    columns = ("guess", "confidence", "score")
    write_label_file(options, columns, rows, "images to label: fill in", "teach")


def _short(number: float | None) -> float | str:
    return "" if number is None else float(f"{number:.6g}")


def _teach(campaign: Campaign, options: Options) -> None:
    labels, partial = options.labels, options.partial
    if options.blind:
        taught = campaign.teach(labels, partial=partial, blind=True)
        _print_safe(f"{taught.n_repeats} blind answers", taught)
    else:
        _print_taught(campaign.teach(labels, partial=partial, train=False))
        if not options.later:
            campaign.estimator()


def _relabel(campaign: Campaign, options: Options) -> None:
    _print_taught(campaign.relabel(options.image, options.label, train=False))


def _mark(campaign: Campaign, options: Options) -> None:
    marks = dict.fromkeys(options.images, f"?{options.command}")
    _print_taught(campaign.teach(marks, train=False))


def _print_taught(taught: TeachResult) -> None:
    changed = f", changed {taught.n_changed}" if taught.n_changed else ""
    same = f"; {taught.n_same} are as before" if taught.n_same else ""
    labels = "label" if taught.n_new == 1 else "labels"
    _print_safe(f"{taught.n_new} {labels}{changed}{same}", taught)


def _print_safe(said: str, taught: TeachResult) -> None:
    """Say what is on the disk, before training may take minutes."""
    refused = (f"left out: {row}" for row in taught.refused)
    print(f"Saved {said}.", *refused, sep="\n", flush=True)


def _undo(campaign: Campaign, _: Options) -> None:
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


# --- status, export, report -----------------------------------------------------------


def _add_reading(commands: Commands) -> None:
    what = "count labels, and what is left"
    add_command(commands, "status", _status, what, refresh=True)
    what = "look for damage in the campaign's folder"
    more = "Look for changed rows, labels that are no class, and events that "
    more += "contradict their rows. Nothing is written."
    check = add_command(commands, "check", _status, what, more, pool=False)
    check.set_defaults(run=_check)
    what = "write all decisions to a CSV file"
    export = add_command(commands, "export", _export, what, refresh=True)
    export.set_defaults(prepare=_prepare_export)
    add_output(export, "CSV file, or folder for Label Studio")
    add = export.add_argument
    what = "write every event instead, a line of JSON each"
    add("--log", action="store_true", help=what)
    what = "label-studio: choose images, and write tasks and its configuration"
    add("--to", choices=("csv", "label-studio"), default="csv", help=what)
    add("-n", type=positive, help="how many tasks (default: as started)")
    what = "where a pool is below Label Studio's root of files (default: its name)"
    named = "[NAME=]PREFIX"
    add("--prefix", action="append", default=[], metavar=named, help=what)
    what = "write a page about the campaign, one HTML file"
    report = add_command(commands, "report", _report, what, refresh=True)
    add_output(report, "HTML file")


def _status(campaign: Campaign, _: Options) -> None:
    print(campaign.status())


def _check(options: Options) -> None:
    from ..labelling.campaign.check import find_problems

    folder = options.campaign
    problems = find_problems(folder)
    if problems:
        raise ValueError(
            "\n  ".join([f"{str(folder)!r} is damaged:", *problems])
            + "\nPut back a copy of the folder from before the damage."
        )
    print(f"{str(folder)!r} is intact.")


def _prepare_export(options: Options) -> None:
    for path in _task_files(options) if options.to == "label-studio" else [options.out]:
        prepare_file(path, overwrite=options.overwrite)


def _task_files(options: Options) -> tuple[Path, Path]:
    return options.out / "label_config.xml", options.out / "tasks.json"


def _export(campaign: Campaign, options: Options) -> None:
    if options.to == "label-studio":
        _export_tasks(campaign, options)
        return
    if options.log:
        events = campaign.log()
        _write(options.out, "".join(f"{json.dumps(event)}\n" for event in events))
        print(f"{len(events)} events in {options.out}")
        return
    n = campaign.last_event
    rows = [
        (path, d.mark, d.who, d.at, state, d.sha256, n)
        for path, d, state in sorted(campaign.decisions(), key=lambda row: row[0])
    ]
    columns = ("path", "label", "who", "when", "file", "sha256", "as_of")
    write_table(options.out, columns, rows)
    print(f"{len(rows)} decisions in {options.out}")


def _export_tasks(campaign: Campaign, options: Options) -> None:
    from ..labelling.campaign.class_names import read_class_names
    from ..labelling.label_studio import label_config, make_tasks

    read_class_names(campaign._event_log).refuse_several("Label Studio")
    config_file, tasks_file = _task_files(options)
    config = label_config(campaign.classes)
    proposals = campaign.query(options.n)
    prefixes = {name: pool.name for name, pool in campaign.pools.items()}
    for item in options.prefix:
        name, _, prefix = item.partition("=")
        if name and name in prefixes:
            prefixes[name] = prefix
        else:
            prefixes[""] = item  # the first pool has no name
    version = f"skadma-{campaign.status().n_labelled}-labels"
    tasks = make_tasks(proposals, prefixes.pop(""), version, pools=prefixes)
    _write(config_file, config)
    _write(tasks_file, json.dumps(tasks, indent=1))
    print(
        f"{len(tasks)} tasks in {tasks_file}, the labelling configuration in "
        f"{config_file}. What Label Studio exports as JSON goes back with: "
        "skadma teach EXPORT.json"
    )


def _report(campaign: Campaign, options: Options) -> None:
    from ..labelling.campaign.report import make_report

    _write(options.out, make_report(campaign))
    print(f"Open {options.out} in a browser.")


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda tmp_path: tmp_path.write_text(text, "utf-8"))


# --- review: suspects, confirm, repeats, agreement ------------------------------------


def _add_review(commands: Commands) -> None:
    what = "choose labels that are worth a second look"
    more = "Choose labels that a model trained without them doubts, the worst first."
    suspects = add_command(commands, "suspects", _suspects, what, more, refresh=True)
    what = "how many (default: %(default)s)"
    suspects.add_argument("-n", type=positive, default=20, help=what)
    what = "judge by the network itself, trained five times: better and slow"
    suspects.add_argument("--refit", action="store_true", help=what)
    add_output(suspects, "label file to correct, for 'skadma teach'")
    what = "let labels stand after a second look"
    confirm = add_command(commands, "confirm", _confirm, what)
    confirm.add_argument("images", nargs="+")
    what = "choose labelled images to show again, blind"
    repeats = add_command(commands, "repeats", _repeats, what, refresh=True)
    what = "of your answers; 1: all images (default: %(default)s)"
    repeats.add_argument("--share", type=float, default=0.05, help=what)
    add_output(repeats, "label file to fill in")
    add_command(commands, "agreement", _agreement, "tell how far people agree")
    what = "tell who is right how often, by all answers and the model"
    add_command(commands, "consensus", _consensus, what, refresh=True)


def _suspects(campaign: Campaign, options: Options) -> None:
    suspects = campaign.second_look(options.n, refit=options.refit)
    columns = ("suggested", "score", "likely", "others", "consensus")
    what = "labels, most doubtful first: correct"
    write_label_file(options, columns, map(_row, suspects), what, "teach")


def _row(suspect: SuspectLabel) -> tuple[str, ...]:
    score = "" if suspect.score is None else f"{suspect.score:.3f}"
    likely = "yes" if suspect.likely else ""
    others = ", ".join(f"{who}: {mark}" for who, mark in suspect.others)
    judged = suspect.suggested or "", score, likely, others, suspect.consensus
    return suspect.path, suspect.label, *judged, suspect.sha256


def _confirm(campaign: Campaign, options: Options) -> None:
    for image in options.images:
        campaign.confirm(image)
    print(f"{len(options.images)} labels stand.")


def _repeats(campaign: Campaign, options: Options) -> None:
    due = campaign.repeats_due(options.share)
    _write_unlabelled(options, due, "images to label again", "teach --blind")


def _write_unlabelled(
    options: Options, images: Iterable[Any], what: str, then: str
) -> None:
    rows = ((image.path, "", image.sha256) for image in images)
    write_label_file(options, (), rows, f"{what}: fill in", then)


def _agreement(campaign: Campaign, _: Options) -> None:
    print(campaign.agreement())


def _consensus(campaign: Campaign, _: Options) -> None:
    print(campaign.consensus())


# --- classes and pools ----------------------------------------------------------------


def _add_changes(commands: Commands) -> None:
    what = "add, rename or merge classes"
    classes = commands.add_parser("classes", help=what, description=f"{what}.")
    actions = classes.add_subparsers(dest="action", required=True)
    add = add_command(actions, "add", _change_classes, "add classes")
    add.add_argument("names", nargs="+", metavar="CLASS")
    what = "give a class and its labels another name"
    rename = add_command(actions, "rename", _change_classes, what)
    rename.add_argument("old")
    rename.add_argument("new")
    what = "make one class of several, labels included"
    merge = add_command(actions, "merge", _change_classes, what)
    merge.add_argument("names", nargs="+", metavar="CLASS")
    into = "one of them or a new name"
    merge.add_argument("--into", required=True, metavar="CLASS", help=into)
    what = "add a folder of images"
    pool = commands.add_parser("pool", help=what, description=f"{what}.")
    actions = pool.add_subparsers(dest="action", required=True)
    more = add_command(actions, "add", _add_pool, what)
    more.add_argument("folder", type=Path)
    what = "paths of its images begin with it (default: the folder's)"
    more.add_argument("--name", help=what)
    what = "take rows of a campaign's table of embeddings for images that have none"
    features = add_command(commands, "features", _add_features, what)
    features.add_argument("features", type=Path, metavar="FILE", help="see 'start'")
    add_features_name(features.add_argument)


def _change_classes(campaign: Campaign, options: Options) -> None:
    if options.action == "add":
        campaign.add_classes(options.names)
    elif options.action == "rename":
        campaign.rename_class(options.old, options.new)
    else:
        campaign.merge_classes(options.names, options.into)
    print(
        f"The classes are {', '.join(campaign.classes)}. The next query trains with "
        "them; 'skadma undo' takes it back."
    )


def _add_pool(campaign: Campaign, options: Options) -> None:
    name = campaign.add_pool(options.folder, options.name, verbose=True)
    print(f"Paths of its images begin with {name}/")
    print(campaign.status())


def _add_features(campaign: Campaign, options: Options) -> None:
    from ..features.table import read_table

    n = campaign.add_features(read_table(options.features, options.features_name))
    print(f"{n} images have a row now that had none.")


# --- evaluate -------------------------------------------------------------------------


def _add_evaluate(commands: Commands) -> None:
    what = "estimate from a few labels how good the model is"
    more = "Estimate from a few labels how good the model is: draw images (--draw), "
    more += "fill in their labels, give the file back. The labels are never trained "
    more += "with, until --release."
    evaluate = add_command(commands, "evaluate", _evaluate, what, more)
    evaluate.set_defaults(prepare=_prepare_evaluate)
    add = evaluate.add_argument
    what = "the file that --draw wrote, filled in"
    one = evaluate.add_mutually_exclusive_group().add_argument
    one("labels", type=Path, nargs="?", help=what)
    what = "draw N images to label; needs -o"
    one("--draw", type=positive, metavar="N", help=what)
    what, ways = "how to draw them (default: %(default)s)", ("stratified", "random")
    add("--method", choices=ways, default=ways[0], help=what)
    what = "of the intervals (default: %(default)s)"
    add("--confidence", type=float, default=0.95, help=what)
    add_partial(evaluate)
    what = "end the audit: its labels are trained with from now on"
    one("--release", action="store_true", help=what)
    what = "label file to fill in; without --draw: what has no label"
    add_output(evaluate, what, required=False)


def _prepare_evaluate(options: Options) -> None:
    if options.release and options.out:
        raise ValueError("--release goes alone; give the label file before.")
    if options.draw and not options.out:
        raise ValueError("--draw needs -o FILE, where the drawn images are listed.")
    if options.out:
        prepare_file(options.out, overwrite=options.overwrite)


def _evaluate(campaign: Campaign, options: Options) -> None:
    audits, what = campaign.audits, "images to label"
    if options.release:
        released = audits.release()
        print(f"{released.n_new} labels of the audit are trained with from now on.")
    elif options.draw:
        drawn = audits.draw(options.draw, method=options.method)
        _write_unlabelled(options, drawn, what, "evaluate")
    else:
        if options.labels:
            _print_taught(audits.answer(options.labels, partial=options.partial))
        pending = audits.pending()
        if options.out:
            _write_unlabelled(options, pending, what, "evaluate")
            return
        print(audits.estimate(confidence=options.confidence))
        if pending:
            print(
                f"{len(pending)} drawn images have no label yet; 'skadma evaluate -o "
                "FILE' lists them. Until then they are taken to be as the others."
            )


# --- export-model ---------------------------------------------------------------------


def _add_export_model(commands: Commands) -> None:
    what = "write the campaign's model to a folder, to hand it on"
    more = "Write the model of all labels so far to a folder: weights, labels, "
    more += "preprocessing, a model card and, with --onnx, an ONNX file."
    export = add_command(commands, "export-model", _export_model, what, more)
    what = "do not calibrate, which takes five trainings of a network"
    export.add_argument("--no-calibration", action="store_true", help=what)
    what = "export the better of the campaign's model and a fine-tuned network"
    more = "Compare the model with a fine-tuned network by cross-validation, and write "
    more += "the better one to a folder. It says first how long that takes."
    finish = add_command(commands, "finish", _export_model, what, more)
    what = "the most that it may take; the campaign's model is taken if it takes longer"
    finish.add_argument("--minutes", type=float, help=what)
    for parser in (export, finish):
        parser.set_defaults(prepare=lambda _: None)  # the campaign refuses the folder
        add_output(parser, "folder")
        what = "write model.onnx (skadma[onnx])"
        parser.add_argument("--onnx", action="store_true", help=what)


def _export_model(campaign: Campaign, options: Options) -> None:
    how = {"onnx": options.onnx, "overwrite": options.overwrite, "verbose": True}
    if options.command == "finish":
        print(campaign.finish(options.out, minutes=options.minutes, **how))
    else:
        how["calibration"] = not options.no_calibration
        campaign.export_model(options.out, **how)
    print(
        f"The model is in {options.out}. Its README.md has lines to fill in: licences."
    )
