"""What Label Studio imports: the labelling configuration, tasks, predictions."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from ..campaign import CampaignError, Proposal
from ..campaign.label_studio_export import NAME, TO

_KEYS = "123456789" + string.ascii_lowercase
_ASIDE = (("?cant-tell", "0"), ("?not-an-image", "-"))


def label_config(classes: Sequence[str]) -> str:
    """Make the labelling configuration of a project.

    One choice for each class, with a key: 1 to 9, then letters; then ``?cant-tell`` (0)
    and ``?not-an-image`` (-). What is skipped is skipped in Label Studio's own way.

    Parameters
    ----------
    classes : sequence of str

    Returns
    -------
    str
        XML.

    Raises
    ------
    CampaignError
        If XML cannot hold a class's name.
    """
    keys = [*_KEYS[: len(classes)], *[""] * (len(classes) - len(_KEYS))]
    choices = (
        f"<Choice value={quoteattr(name)}{f' hotkey={quoteattr(key)}' if key else ''}/>"
        for name, key in (*zip(classes, keys, strict=True), *_ASIDE)
    )
    lines = "\n".join(f"    {choice}" for choice in choices)
    config = (
        f'<View>\n  <Image name="{TO}" value="$image"/>\n'
        f'  <Choices name="{NAME}" toName="{TO}" choice="single-radio" '
        f'required="true">\n{lines}\n  </Choices>\n</View>\n'
    )
    try:
        read = [each.get("value") for each in ElementTree.fromstring(config)[1]]
    except ElementTree.ParseError as error:
        raise CampaignError(
            f"XML cannot hold the name of one of the classes {list(classes)} ({error})."
        ) from error
    assert read[: len(classes)] == list(classes)
    return config


def make_tasks(
    proposals: Iterable[Proposal],
    prefix: str,
    model_version: str,
    *,
    pools: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Make tasks to import, with the model's guesses as predictions.

    Parameters
    ----------
    proposals : iterable of Proposal
        Most useful first.
    prefix : str
        Where the pool is below Label Studio's root of local files; may be empty.
    model_version : str
        What the guesses are called.
    pools : mapping of str to str, optional
        The same as `prefix` for pools that were added, by name.

    Returns
    -------
    list of dict
        ``json.dumps`` gives the file.
    """
    tasks = []
    for rank, proposal in enumerate(proposals):
        name, _, inside = proposal.path.partition("/")
        parts = prefix, proposal.path
        if pools and inside and name in pools:
            parts = pools[name], inside
        place = "/".join(part.strip("/") for part in parts if part.strip("/"))
        data = {
            "image": f"/data/local-files/?d={quote(place)}",
            "path": proposal.path,
            "sha256": proposal.sha256,
            "rank": rank,
        }
        if proposal.score is not None:
            data["score"] = proposal.score
        task: dict[str, Any] = {"data": data}
        if proposal.guess is not None and proposal.confidence is not None:
            task["predictions"] = [
                prediction(proposal.guess, proposal.confidence, model_version)
            ]
        tasks.append(task)
    return tasks


def prediction(guess: str, confidence: float, model_version: str) -> dict[str, Any]:
    """Make a task's prediction of a class, with its probability."""
    return {
        "model_version": model_version,
        "score": confidence,
        "result": [
            {
                "from_name": NAME,
                "to_name": TO,
                "type": "choices",
                "value": {"choices": [guess]},
            }
        ],
    }
