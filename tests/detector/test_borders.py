"""A patch's mean is what was added to the running sum since it began, and no more sums are kept
than there are patches under way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.backend import Ask
from detector.engine.borders import Borders
from detector.engine.run import Run
from detector.trajectory import END, PROMPT, QUESTION, Look, patch, patches

STATES = torch.randn(40, 3, 4, generator=torch.Generator().manual_seed(0))


def play(looks: Sequence[Look]) -> tuple[dict[Look, Tensor], int]:
    """What is seen of one run's 40 states, and the most sums that were kept at once."""
    run, borders, most = Run(Ask((1,), 40)), Borders(looks), 0
    seen: dict[Look, Tensor] = {}

    def means(runs: Sequence[Run]) -> Tensor:
        return torch.stack([STATES[: len(each.generated) + 1].mean(0) for each in runs])

    for n_tokens in range(1, 41):
        for look in borders.looks_at(n_tokens):
            seen[look] = borders.since(look, [run], means([run]))[0]
        borders.keep([run], (), means)
        most = max(most, len(run.borders))
        run.generated.append(0)
    return seen, most


def test_each_patch_is_the_mean_of_its_own_states() -> None:
    looks = [PROMPT, 8, patch(2, 3), patch(9, 16), patch(12, 40), patch(17, 17), END]
    seen, _ = play(looks)
    expected = {8: (0, 8), looks[2]: (1, 3), looks[3]: (8, 16), looks[4]: (11, 40)}
    expected[looks[5]] = (16, 17)
    assert set(seen) == set(expected)
    for look, (start, stop) in expected.items():
        # A difference of two float32 sums of some 40 numbers of size 1.
        torch.testing.assert_close(seen[look], STATES[start:stop].mean(0), atol=1e-5, rtol=0)


def test_looks_are_taken_where_their_last_token_is() -> None:
    borders = Borders({PROMPT, QUESTION, 8, patch(5, 8), patch(8, 9), END})
    assert list(borders.looks_at(8)) == [8, patch(5, 8)]
    assert list(borders.looks_at(9)) == [patch(8, 9)]
    assert not any(borders.looks_at(n_tokens) for n_tokens in range(8))


def test_one_sum_is_kept_where_patches_follow_each_other() -> None:
    assert play(patches("1-40/4"))[1] == 1
    assert play([patch(2, 40), patch(3, 5), patch(6, 9)])[1] == 2
    assert play([PROMPT, 8, 16])[1] == 0
