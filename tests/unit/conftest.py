"""How thorough hypothesis is: modest here, so the suite stays quick on two busy cores."""

from hypothesis import HealthCheck, settings

# Time on a busy machine says nothing about the code, so it is never a reason to fail.
settings.register_profile("modest", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("modest"), max_examples=5000)
settings.load_profile("modest")
