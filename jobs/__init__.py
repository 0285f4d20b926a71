"""The command line, the driver and the studies."""
