"""What has to happen on the pods: from what is wanted and what is seen to actions. Pure."""
