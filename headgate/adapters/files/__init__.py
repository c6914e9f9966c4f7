"""The files of adapters on a pod's disk: what they must be, and the agent that copies them."""
