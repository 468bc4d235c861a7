"""Real clients before the gateway."""

import pytest

pytest.register_assert_rewrite("tests.clients.sides")
