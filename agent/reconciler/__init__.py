"""One path for creation, drift, adoption, policy change and removal: look, plan, do, tell."""
