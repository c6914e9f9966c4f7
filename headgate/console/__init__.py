"""Pages for people, written on the server: what was used, by whom, and who may."""
