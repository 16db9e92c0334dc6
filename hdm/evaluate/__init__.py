"""Scores: how good joints are, against the annotations alone; and what can be concluded from scores."""

from hdm.evaluate.coco import coco_ap, coco_results, write_coco_results
from hdm.evaluate.consistency import Consistency, Flow, consistency, gradient_flow, kendall_tau, step_discordance
from hdm.evaluate.heatmaps import calibration_error, effective_pixels, score_auc, spread
from hdm.evaluate.localisation import localisation_error, mean_pose, pck
from hdm.evaluate.mpii import MpiiTruth, head_distance, pckh, pckh_table, read_mpii_truth, write_mpii_predictions
from hdm.evaluate.rescoring import oks_nms, oks_nms_per_image, person_scores
from hdm.evaluate.statistics import Comparison, holm, mean_interval, paired_comparison

__all__ = [
    "Comparison",
    "Consistency",
    "Flow",
    "MpiiTruth",
    "calibration_error",
    "coco_ap",
    "coco_results",
    "consistency",
    "effective_pixels",
    "gradient_flow",
    "head_distance",
    "holm",
    "kendall_tau",
    "localisation_error",
    "mean_interval",
    "mean_pose",
    "oks_nms",
    "oks_nms_per_image",
    "paired_comparison",
    "pck",
    "pckh",
    "pckh_table",
    "person_scores",
    "read_mpii_truth",
    "score_auc",
    "spread",
    "step_discordance",
    "write_coco_results",
    "write_mpii_predictions",
]
