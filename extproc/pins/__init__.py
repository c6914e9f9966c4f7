"""The memory of pins: in this process, or in Redis for several replicas."""
