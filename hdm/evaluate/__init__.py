"""Scores: how good joints are, against the annotations alone."""

from hdm.evaluate.coco import coco_ap, coco_results, write_coco_results
from hdm.evaluate.localisation import localisation_error, mean_pose, pck
from hdm.evaluate.mpii import MpiiTruth, head_distance, pckh, pckh_table, read_mpii_truth, write_mpii_predictions
from hdm.evaluate.rescoring import oks_nms, oks_nms_per_image, person_scores

__all__ = [
    "MpiiTruth",
    "coco_ap",
    "coco_results",
    "head_distance",
    "localisation_error",
    "mean_pose",
    "oks_nms",
    "oks_nms_per_image",
    "pck",
    "pckh",
    "pckh_table",
    "person_scores",
    "read_mpii_truth",
    "write_coco_results",
    "write_mpii_predictions",
]
