"""tmp"""

from odp.backends.ezkl.cost_report import Resources


def minimal_logrows(region, arguments, instances):
    return 0


def estimate_resources(*a):
    return Resources(0, 0, 0, 0, 0, 0.0, 0.0)
