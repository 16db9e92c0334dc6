"""Heatmap Distribution Matching for human pose estimation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hdm.poses import predict

__all__ = ["predict"]


def __getattr__(name: str) -> Any:
    """`from hdm import predict` without making every import of the package wait for torch."""
    if name in __all__:
        from hdm import poses

        return getattr(poses, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
