"""Label Studio: tasks for it, annotations from it, and its protocol of ML backends."""

from ..campaign.label_studio import label_config, make_tasks, read_export

__all__ = ["label_config", "make_tasks", "read_export"]
