"""A real PostgreSQL for the tests of one file, and a database for each."""

from __future__ import annotations

import re

import pytest
from postgres_server import running


@pytest.fixture(scope="module")
def server():
    with running() as found:
        yield found


@pytest.fixture
def url(server, request):
    return server.create(re.sub(r"\W", "_", request.node.name)[-60:])
