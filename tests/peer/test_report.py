"""What a member says of its engine; what it says of its peers is in test_agent.py and the system's tests."""

import pytest

from wgdisco.peer.report import SLOW_NOTE, engine_notes
from wgdisco.tunnel import burst


@pytest.fixture(params=["compiled", "reference"])
def engine(request):
    before = burst.implementation()
    burst.use(request.param)
    yield request.param
    burst.use(before)


def test_the_slow_engine_is_worth_a_note(engine):
    assert burst.engine_name() == f"userspace ({engine})"
    assert engine_notes() == ([SLOW_NOTE] if engine == "reference" else [])
