"""Heatmap Distribution Matching for human pose estimation."""
