"""A labelling campaign on disk."""

from .agreement import Agreement, Disagreement, PairAgreement
from .campaign import Campaign
from .decide import Taught
from .event_log import CampaignBusyError, CampaignError
from .labels_csv import LabelFileError, LabelRow
from .pace import Pace
from .second_look import CantTell, Doubt
from .state import Decision
from .status import Status
from .trainer import Proposal

__all__ = [
    "Agreement",
    "Campaign",
    "CampaignBusyError",
    "CampaignError",
    "CantTell",
    "Decision",
    "Disagreement",
    "Doubt",
    "LabelFileError",
    "LabelRow",
    "Pace",
    "PairAgreement",
    "Proposal",
    "Status",
    "Taught",
]
