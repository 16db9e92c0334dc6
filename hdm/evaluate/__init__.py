"""Scores: how good joints are, against the annotations alone."""

from hdm.evaluate.coco import coco_ap, coco_results
from hdm.evaluate.localisation import localisation_error, mean_pose, pck

__all__ = ["coco_ap", "coco_results", "localisation_error", "mean_pose", "pck"]
