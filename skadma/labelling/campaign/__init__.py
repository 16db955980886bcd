"""A labelling campaign on disk."""

from .agreement import Agreement, Disagreement, PairAgreement
from .audits import Audits
from .campaign import Campaign
from .consensus import CampaignConsensus, ImageConsensus, PersonQuality
from .event_log import CampaignBusyError, CampaignError
from .finish import FinishResult
from .labels_csv import LabelFileError, LabelRow
from .record_labels import TeachResult
from .second_look import SuspectLabel
from .state import Decision, Proposal
from .status import Pace, Status

__all__ = [
    "Agreement",
    "Audits",
    "Campaign",
    "CampaignBusyError",
    "CampaignConsensus",
    "CampaignError",
    "Decision",
    "Disagreement",
    "FinishResult",
    "ImageConsensus",
    "LabelFileError",
    "LabelRow",
    "Pace",
    "PairAgreement",
    "PersonQuality",
    "Proposal",
    "Status",
    "SuspectLabel",
    "TeachResult",
]
