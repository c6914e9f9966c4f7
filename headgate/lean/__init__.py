"""The lean path: one call of ext_authz that decides everything about a request."""
