"""Merging: an adapter's update added to its base model's weights, tensor by tensor, in host memory."""

from medqlora.artifacts.merge.merging import Merged, MergeOptions, merge_adapter

__all__ = ["MergeOptions", "Merged", "merge_adapter"]
