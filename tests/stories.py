"""Stories: functions that are tests, but for their fixtures, so that several are told at the same time.

They wait more than they compute: one after another, they would take many times as long. A file registers its stories,
a fixture begins them, and one test with the parameter `story` takes the outcome of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

Story = Callable[..., None]
Outcomes = dict[Story, Future[None]]


class Stories:
    """They are told `at_once`; 1: one after another, in their order."""

    def __init__(self, at_once: int = 100) -> None:
        self.all: list[Story] = []
        self._at_once = at_once

    def __call__(self, story: Story) -> Story:
        self.all.append(story)
        return story

    @property
    def each(self) -> pytest.MarkDecorator:
        """Marks the test of their outcomes, below all of them."""
        return pytest.mark.parametrize("story", self.all, ids=lambda story: story.__name__)

    @contextmanager
    def telling(self, request: pytest.FixtureRequest, *arguments: Any) -> Iterator[Outcomes]:
        """Begins those that this run of pytest selects; at the block's end all have ended."""
        selected = self.selected(request)
        with ThreadPoolExecutor(min(self._at_once, len(selected) + 1)) as pool:
            yield {story: pool.submit(story, *arguments) for story in selected}

    def selected(self, request: pytest.FixtureRequest) -> list[Story]:
        """Those that a test of this run has as its parameter."""
        calls = [item.callspec for item in request.session.items if hasattr(item, "callspec")]
        stories = [call.params.get("story") for call in calls]
        return [story for story in self.all if story in stories]

    def in_a_folder(self) -> Any:
        """The fixture `outcomes` of stories that get one folder for all of them."""

        @pytest.fixture(scope="module")
        def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
            with self.telling(request, tmp_path_factory.mktemp("stories")) as outcomes:
                yield outcomes

        return outcomes
