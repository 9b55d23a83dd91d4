"""How thorough hypothesis is: modest here, so the suite stays quick on two busy cores.

`HYPOTHESIS_PROFILE=thorough` looks much further, for a change of the core.
"""

import os

from hypothesis import HealthCheck, settings

# Time on a busy machine says nothing about the code, so it is never a reason to fail.
settings.register_profile("modest", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("modest"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "modest"))
