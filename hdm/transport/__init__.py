"""Earth Mover's Distance between a heatmap and a dot annotation.

`demanders` says where the mass must go and at what cost; `emd` computes the distance and its gradient, and checks what
it is given. One demander needs no solver. For four, `exact` takes off what need not move and has `dual` find the four
numbers that solve the problem, from pixels and `groups` of pixels; `sinkhorn` solves the entropic problem instead.
"""

from hdm.transport.demanders import COSTS, DEMANDERS, check_scale, demanders_of, transport_costs
from hdm.transport.emd import SOLVERS, Certificate, certify, heatmap_emd, transport_plan, unchecked_emd

__all__ = [
    "COSTS",
    "DEMANDERS",
    "SOLVERS",
    "Certificate",
    "certify",
    "check_scale",
    "demanders_of",
    "heatmap_emd",
    "transport_costs",
    "transport_plan",
    "unchecked_emd",
]
