"""The Grafana dashboards, as code: a module for each reader. `make dashboards` writes them."""
