"""What does Headgate cost beside its peers? Each stack runs here, and they take turns."""
