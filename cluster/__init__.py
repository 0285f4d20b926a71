"""What starts processes: torchrun on this machine, and the configs that start idia on a cluster."""
