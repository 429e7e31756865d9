"""Measure the leaderboard's fit and its bootstrap on a million votes: `python bench/leaderboard.py`.

The peer is a loop that refits each round from the votes drawn: the same model and the same optimizer, without the
counts that a round of clusters is made of. Its rounds draw the same people, and the strengths must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

from harness.measure import davidson

OUT = Path(__file__).with_name("results") / "leaderboard-cpu.json"
TIE = 0.4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument(
        "--plain-rounds", type=int, default=3, help="of the plain loop, from which its time is reckoned"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    votes = drawn(args.votes, args.models, args.people)
    began = time.perf_counter()
    counts = davidson.Counts.of(args.models, *votes)
    counted_s = time.perf_counter() - began
    fitted = davidson.fit(counts.pairs())
    covariance = davidson.covariance(counts, fitted)
    fitted_s = time.perf_counter() - began - counted_s
    samples = davidson.bootstrap(counts, fitted, args.rounds)
    total_s = time.perf_counter() - began
    sandwich = np.sqrt(np.diag(covariance))[: args.models]
    began = time.perf_counter()
    plain = plain_bootstrap(votes, args.models, args.plain_rounds)
    plain_s = (time.perf_counter() - began) / args.plain_rounds * args.rounds
    difference = float(np.abs(plain - samples[: args.plain_rounds]).max())
    if not difference < 1e-6 or len(samples) != args.rounds:
        raise SystemExit(f"the two loops do not agree: strengths differ by {difference:.1e}, {len(samples)} rounds")
    results = {
        "votes": args.votes, "models": args.models, "people": args.people, "rounds": len(samples),
        "cores": len(os.sched_getaffinity(0)), "counting_s": round(counted_s, 2),
        "fit_and_sandwich_s": round(fitted_s, 2),
        "bootstrap_s": round(total_s - counted_s - fitted_s, 2), "total_s": round(total_s, 2),
        "plain_loop_s_reckoned": round(plain_s, 1), "plain_rounds_timed": args.plain_rounds,
        "times_as_fast": round(plain_s / total_s, 1),
        "largest_difference_of_strengths": difference,
        "bootstrap_to_sandwich_errors": [
            round(float(ratio), 3) for ratio in np.quantile(samples.std(axis=0) / sandwich, [0, 0.5, 1])
        ],
    }  # fmt: skip
    args.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


def drawn(n: int, models: int, people: int) -> tuple[np.ndarray, ...]:
    """Draw votes by Davidson's model, of people of unequal number: person, first, second, score, weight."""
    random = np.random.default_rng(0)
    strengths = random.normal(0, 0.8, models)
    person = np.minimum((people * random.power(0.5, n)).astype(int), people - 1)
    first = random.integers(models, size=n)
    second = (first + random.integers(1, models, size=n)) % models
    half = (strengths[first] - strengths[second]) / 2
    odds = np.stack([np.exp(half), np.exp(-half), np.full(n, TIE)], axis=1)
    outcome = (random.random(n)[:, None] > np.cumsum(odds / odds.sum(axis=1, keepdims=True), axis=1)).sum(axis=1)
    return person, first, second, np.array([1.0, 0.0, 0.5])[outcome], np.ones(n)


def plain_bootstrap(votes: tuple[np.ndarray, ...], models: int, rounds: int) -> np.ndarray:
    """Refit on the votes of people drawn with replacement, by the same draws, counted anew in each round."""
    random = np.random.default_rng(0)
    people, person = np.unique(votes[0], return_inverse=True)
    even = np.full(len(people), 1 / len(people))
    rows = []
    for _ in range(rounds):
        at = np.repeat(np.arange(len(person)), random.multinomial(len(people), even)[person])
        rows.append(davidson.fit(davidson.Counts.of(models, *(column[at] for column in votes)).pairs()).strengths)
    return np.array(rows)


if __name__ == "__main__":
    main()
