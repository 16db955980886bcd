"""A labelling campaign on disk."""

from .campaign import Campaign
from .decide import Taught
from .labels_csv import LabelFileError
from .state import Decision
from .status import Status
from .store import CampaignBusyError, CampaignError
from .trainer import Proposal

__all__ = [
    "Campaign",
    "CampaignBusyError",
    "CampaignError",
    "Decision",
    "LabelFileError",
    "Proposal",
    "Status",
    "Taught",
]
