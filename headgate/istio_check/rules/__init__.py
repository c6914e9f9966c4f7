"""The rules of `headgate check --istio`, each a function from the mesh to findings."""
