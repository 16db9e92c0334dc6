"""The measurements behind the book's statements on speed and on protocols: `hdm bench`."""

from hdm.bench.flow import bench_flow, flow_table
from hdm.bench.pipeline import bench_pipeline, pipeline_table
from hdm.bench.protocol import bench_protocol
from hdm.bench.step import bench_step, step_table
from hdm.bench.transport import bench_transport, speed_table

__all__ = [
    "bench_flow",
    "bench_pipeline",
    "bench_protocol",
    "bench_step",
    "bench_transport",
    "flow_table",
    "pipeline_table",
    "speed_table",
    "step_table",
]
