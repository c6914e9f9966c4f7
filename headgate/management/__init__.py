"""The management API: who may see and change keys, users and limits, over HTTP."""
