"""Where pins are remembered: in this process, and for several replicas in Redis."""
