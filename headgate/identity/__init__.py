"""Who is calling, where it is not a key of the policy file."""
