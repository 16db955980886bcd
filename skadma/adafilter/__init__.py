"""AdaFilter: for each example and filter, the pretrained or the fine-tuned one."""

from .classifier import AdaFilterClassifier

__all__ = ["AdaFilterClassifier"]
