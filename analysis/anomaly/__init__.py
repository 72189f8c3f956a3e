"""What `analysis.anomalies` is made of: rolling statistics, residuals, calibrated detection, episodes."""
