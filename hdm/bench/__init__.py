"""The measurements behind the book's statements on speed and on protocols: `hdm bench`."""

from hdm.bench.protocol import bench_protocol
from hdm.bench.transport import bench_transport, speed_table

__all__ = ["bench_protocol", "bench_transport", "speed_table"]
