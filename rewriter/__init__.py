"""Graph view, pattern matcher, pass manager, calibration, measurement and report."""
