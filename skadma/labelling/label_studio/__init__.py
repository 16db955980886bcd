"""Label Studio: tasks for it, annotations from it, and its protocol of ML backends."""

from ..campaign.label_studio_export import read_export
from .tasks import label_config, make_tasks

__all__ = ["label_config", "make_tasks", "read_export"]
