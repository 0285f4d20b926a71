"""Ray dataflows: one file a stage."""
