"""What the system tests share: a running agent, hands inside namespaces, independent eyes."""

import pytest

# An assertion that fails in a helper is to say as much as one in a test.
pytest.register_assert_rewrite("tests.harness.expect", "tests.harness.observe", "tests.harness.running")
