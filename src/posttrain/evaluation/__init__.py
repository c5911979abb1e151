"""How well scores rank held-out responses: metrics, intervals, baselines, calibration."""
