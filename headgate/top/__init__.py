"""`headgate top`: shows the live traffic of a running Headgate in a terminal."""
