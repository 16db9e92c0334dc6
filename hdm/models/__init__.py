"""Networks that turn person crops into one heatmap per joint."""

from hdm.models.simple_baseline import SimpleBaseline, build_model

__all__ = ["SimpleBaseline", "build_model"]
