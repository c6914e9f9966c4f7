"""People who log in by a browser: sessions, cookies, and the pages of login and log-out."""
