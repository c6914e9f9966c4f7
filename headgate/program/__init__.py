"""The program: it builds the services, runs them, and starts one box around them."""
