"""Grafana's dashboards of vethd, and the alerts; `python -m dashboards.build` writes the JSON files anew."""
