"""Makes what belongs to a release beside the wheel: its bills of materials and its wheel list."""
