"""How many GPUs the traffic needs: a forecast from usage records, by simulation."""
