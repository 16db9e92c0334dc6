"""Heatmap Distribution Matching for human pose estimation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hdm.poses import predict

__all__ = ["__version__", "predict"]

__version__: str


def __getattr__(name: str) -> Any:
    """`from hdm import predict` without making every import of the package wait for torch, and `hdm.__version__`."""
    if name == "predict":
        from hdm import poses

        return poses.predict
    if name == "__version__":
        from importlib import metadata

        return metadata.version("hdm")  # pyproject.toml's
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
