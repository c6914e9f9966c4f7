"""The reconciler: one leader looks at the pods, plans, and acts, again and again."""
