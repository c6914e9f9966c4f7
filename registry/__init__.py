"""Who exists: tenants, keys, models and their limits, compiled from the policy file."""
