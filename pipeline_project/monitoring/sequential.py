"""A test of two proportions that may be looked at after every label: its error holds however often and whenever one stops.

Safe test for two Bernoulli streams: R. Turner, A. Ly, P. Gruenwald, "Generic E-variables for exact sequential k-sample tests that allow
for optional stopping", Journal of Statistical Planning and Inference 230 (2024), sections 2-3. Outcomes are taken in blocks of fixed
size, n_a of one stream and n_b of the other. For any guess (theta_a, theta_b) made before a block is seen, with
theta_0 = (n_a theta_a + n_b theta_b) / (n_a + n_b),

    S = prod_a p(y | theta_a) / p(y | theta_0)  x  prod_b p(y | theta_b) / p(y | theta_0)

has an expectation of at most 1 whenever both streams share one proportion, whichever it is. The product over blocks is therefore a
non-negative supermartingale under the null hypothesis, and by Ville's inequality (1939) it ever exceeds 1 / alpha with a probability
of at most alpha: 1 / max S is a p-value at every moment. Unlike the mixture SPRT of Johari et al. (2022) it needs no normal
approximation, so it holds from the first labels on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

_PRIOR = 0.18  # pseudo-outcomes of each kind behind the guesses; the value that the paper recommends


@dataclass(frozen=True)
class SequentialOutcome:
    """`p_value` is valid at every moment; `evidence` is the e-value now, `largest` its largest so far; `used` (a, b) outcomes."""

    p_value: float
    evidence: float
    largest: float
    blocks: int
    used: tuple[int, int]


def compare_proportions(first: Sequence[bool], second: Sequence[bool], *, block: tuple[int, int] = (1, 1)) -> SequentialOutcome:
    """Test two streams of outcomes for a difference of their proportions, two-sided.

    Args:
        first: outcomes in the order in which they became known.
        second: likewise of the other stream.
        block: outcomes (n_a, n_b) of one block, fixed by the design of the experiment, never by the outcomes: (4, 1) for a split of
            80/20 loses no labels. Outcomes that do not fill a block wait.

    Raises:
        ValueError: a block size below 1.
    """
    n_a, n_b = block
    if n_a < 1 or n_b < 1:
        raise ValueError(f"a block needs at least one outcome of each stream; it is {block}.")
    right, seen = [0, 0], [0, 0]
    evidence, largest = 0.0, 0.0
    blocks = min(len(first) // n_a, len(second) // n_b)
    for number in range(blocks):
        a, b = ((right[i] + _PRIOR) / (seen[i] + 2 * _PRIOR) for i in (0, 1))
        null = (n_a * a + n_b * b) / (n_a + n_b)
        hits = (sum(first[number * n_a : (number + 1) * n_a]), sum(second[number * n_b : (number + 1) * n_b]))
        for i, (guess, size) in enumerate(((a, n_a), (b, n_b))):
            evidence += hits[i] * log(guess / null) + (size - hits[i]) * log((1 - guess) / (1 - null))
            right[i] += hits[i]
            seen[i] += size
        largest = max(largest, evidence)
    return SequentialOutcome(
        exp(-largest), exp(min(evidence, 700.0)), exp(min(largest, 700.0)), blocks, (blocks * n_a, blocks * n_b)
    )  # exp(710) overflows


def block_sizes(first_weight: float, second_weight: float, *, most: int = 20) -> tuple[int, int]:
    """Block sizes that fit a configured split: (4, 1) for 0.8 and 0.2, at most `most` of the larger stream.

    Raises:
        ValueError: a weight of 0 or less.
    """
    if min(first_weight, second_weight) <= 0:
        raise ValueError(f"both routes need a weight above 0; they are {first_weight:g} and {second_weight:g}.")
    ratio = first_weight / second_weight
    return (min(most, round(ratio)), 1) if ratio >= 1 else (1, min(most, round(1 / ratio)))
