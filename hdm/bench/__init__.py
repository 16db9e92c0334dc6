"""The measurements behind the book's statements on speed: `hdm bench`."""

from hdm.bench.transport import bench_transport, speed_table

__all__ = ["bench_transport", "speed_table"]
