"""A session keeps a ballot for each turn: its columns in drawn order, each answer, and one verdict."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from scipy import stats

pytest.importorskip("sqlalchemy")
pytest.importorskip("openai")

from harness_serve import markup
from harness_serve.answering import Answer, Sampling, Shared, Turn
from harness_serve.browsing import Filter, ballots_html, question_of, rows
from harness_serve.catalogue import Catalogue, Known, Unchanging
from harness_serve.handlers import Handlers
from harness_serve.lot import EVERY, Lot
from harness_serve.prompt_sets import Prompt, PromptSet
from harness_serve.rendering import column_html, confirmation_html
from harness_serve.revealing import revealing_words
from harness_serve.session import Session, pause_s
from harness_serve.study import Study

from harness import HarnessError
from harness.client.asking import Client
from harness.contract import Endpoint
from harness.measure.leaderboard import usable
from harness.nouns import Ballot, Side, Verdict
from harness.testing import FakeEndpoint, Reply, Request
from harness.variants import Variant
from harness.votes.store import Ballots

NAMES = ("base", "alpha", "beta", "gamma")
UNCHANGING = Catalogue(Unchanging(Endpoint("http://127.0.0.1:9/v1", NAMES)))


@pytest.fixture
def ballots(tmp_path: Path) -> Ballots:
    return Ballots(str(tmp_path / "votes.db"))


@pytest.fixture
def shared(fake_endpoint: FakeEndpoint, ballots: Ballots) -> Shared:
    """A page's shared parts; each variant answers with its name and the number of the turn."""
    fake_endpoint.answer = lambda request: f"{request.body['model']} {len(request.body['messages'])}"
    known = Known(NAMES, {"alpha": "f" * 64})
    return Shared(client_of(fake_endpoint), ballots, lambda: known)


def client_of(endpoint: FakeEndpoint) -> Client:
    client = Client(endpoint.url)
    client.open()
    return client


def begun(*variants: str, seed: int | None = None) -> Session:
    session = Session()
    session.begin_anew(variants, seed)
    return session


async def drained(news: AsyncIterator[None]) -> None:
    async for _ in news:
        pass


async def ask(session: Session, shared: Shared, prompt: str = "Who?") -> None:
    await drained(session.ask(shared, prompt, "Be brief.", Sampling()))


def test_a_turn_opens_one_ballot_with_each_answer_in_it(shared: Shared, ballots: Ballots) -> None:
    session = begun(*NAMES, seed=5)
    asyncio.run(ask(session, shared))
    (ballot,) = ballots
    assert (ballot.state, ballot.seed, ballot.system_prompt) == ("open", 5, "Be brief.")
    assert [side.variant for side in ballot.sides] == session.variants
    for side in ballot.sides:
        assert (side.answer, side.finish, side.tokens) == (f"{side.variant} 2", "stop", 2)
        assert side.recipe_sha256 == ("f" * 64 if side.variant == "alpha" else None)


@pytest.mark.parametrize("verdict", [Verdict("best", 2), Verdict("tie"), Verdict("bad")])
def test_a_verdict_on_four_columns_is_one_vote_on_one_ballot(
    shared: Shared, ballots: Ballots, verdict: Verdict
) -> None:
    session = begun(*NAMES)

    async def judged() -> None:
        await ask(session, shared)
        await drained(session.judge(shared, verdict))
        assert [(ballot.state, ballot.verdict) for ballot in ballots] == [("voted", verdict)]
        await session.close(shared, "")

    asyncio.run(judged())
    (ballot,) = ballots
    assert (ballot.state, ballot.verdict) == ("revealed", verdict) and session.turns[-1].verdict == verdict


def test_columns_are_in_the_order_that_the_seed_drew_in_every_turn(shared: Shared, ballots: Ballots) -> None:
    orders = {seed: begun(*NAMES, seed=seed).variants for seed in range(200)}
    assert {order[0] for order in orders.values()} == set(NAMES)
    assert all(begun(*NAMES, seed=seed).variants == order for seed, order in orders.items())
    session = begun(*NAMES)

    async def two_turns() -> None:
        await ask(session, shared)
        await ask(session, shared, "And where?")

    asyncio.run(two_turns())
    first, second = ballots
    assert first.seed == second.seed == session.seed
    assert [side.variant for side in first.sides] == [side.variant for side in second.sides] == session.variants
    for side in second.sides:  # its own answers only
        assert [message["content"] for message in side.messages] == [
            "Be brief.",
            "Who?",
            f"{side.variant} 2",
            "And where?",
        ]


def test_each_conversation_draws_a_seed_of_its_own() -> None:
    session = Session()
    seeds = set()
    for _ in range(20):
        session.begin_anew(NAMES)
        seeds.add(session.seed)
    assert len(seeds) == 20 and all(0 <= seed < 2**63 for seed in seeds)


def test_informative_pairs_follow_the_votes(ballots: Ballots) -> None:
    """The pair with the most votes is drawn least; chances are computed again after some more votes."""
    models, lot = NAMES[:3], Lot(ballots, by_information=True)
    assert Lot(ballots).weights(models) is None

    def vote(count: int, *names: str) -> None:
        for number in range(count):
            sides = [Side(name, None, [], f"by {name}", "stop") for name in names]
            ballots.vote(ballots.open(sides, seed=0, sampling={}, blind=True), Verdict("best", number % 2), reveal=True)

    assert lot.weights(models) == pytest.approx({frozenset(pair): 1 / 3 for pair in itertools.combinations(models, 2)})
    vote(EVERY, "base", "alpha")
    weights = lot.weights(models)
    assert weights is not None and min(weights, key=lambda pair: weights[pair]) == {"base", "alpha"}
    vote(EVERY - 1, "alpha", "beta")
    assert lot.weights(models) is weights
    vote(1, "alpha", "beta")
    assert lot.weights(models) != weights
    session, drawn = Session(), Counter[frozenset[str]]()
    for _ in range(600):
        session.begin_anew(models, blind=True, weights=weights)
        drawn[frozenset(session.variants)] += 1
    expected = [600 * chance for chance in weights.values()]
    assert stats.chisquare([drawn[pair] for pair in weights], expected).pvalue > 1e-4


def test_a_verdict_may_be_changed_until_the_names_are_shown(shared: Shared, ballots: Ballots) -> None:
    session = Session()
    session.begin_anew(NAMES, blind=True)

    async def judged() -> None:
        await ask(session, shared)
        await drained(session.judge(shared, Verdict("tie")))
        await drained(session.judge(shared, Verdict("best", 0)))
        await drained(session.judge(shared, None, ["clearer"]))
        assert session.is_hidden and session.turns[-1].is_open
        await session.close(shared, "")
        await drained(session.judge(shared, Verdict("bad")))

    asyncio.run(judged())
    (ballot,) = ballots
    assert (ballot.verdict, ballot.state, ballot.reasons) == (Verdict("best", 0), "revealed", ("clearer",))
    assert session.turns[-1].verdict == Verdict("best", 0) and not session.turns[-1].problem


SETTINGS = (0.0, 1.0, 64, "", "")  # of the pane


def test_a_question_that_is_asked_again_closes_the_ballot_before(shared: Shared, ballots: Ballots) -> None:
    """Nobody can judge the earlier one any more; going on without a verdict closes a ballot, too."""
    session, handlers = begun("base", "alpha"), Handlers(shared, UNCHANGING, Lot(ballots))

    async def asked() -> None:
        await drained(handlers.ask(session, "Compare", "Who?", "", *SETTINGS))
        await drained(handlers.ask_again(session, "Compare", "", *SETTINGS))
        await drained(handlers.ask(session, "Compare", "Where?", "", *SETTINGS))
        await handlers.edit(session, "Compare")
        await drained(handlers.ask(session, "Compare", "Where else?", "", *SETTINGS))

    asyncio.run(asked())
    assert [(ballot.state, ballot.note, ballot.replaces) for ballot in ballots] == [
        ("void", "asked again before a verdict", None),
        ("void", "not judged before the next question", 1),
        ("void", "the question was edited", None),
        ("open", "", 3),
    ]
    assert [turn.prompt for turn in session.turns] == ["Who?", "Where else?"]


def test_a_set_is_worked_through_with_repeats(
    shared: Shared, ballots: Ballots, fake_endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each prompt once, and earlier answers again, which ask nobody and count for the agreement only."""
    monkeypatch.setattr("harness_serve.session.BLIND_S", 0.01)
    prompts = PromptSet(tuple(Prompt(f"p{n}", f"Question {n}?", "law") for n in range(4)), repeats=1.0)
    session, handlers = Session(person="ada"), Handlers(shared, UNCHANGING, Lot(ballots), Study(prompts))

    async def worked() -> None:
        for _ in range(8):
            await drained(handlers.follow(session, "Arena", "", *SETTINGS))
            if session.turns:
                await drained(session.judge(shared, Verdict("tie")))
        await session.close(shared, "")

    asyncio.run(worked())
    kept = list(ballots)
    first = [ballot for ballot in kept if ballot.repeat_of is None]
    again = [ballot for ballot in kept if ballot.repeat_of is not None]
    assert sorted(ballot.prompt_id for ballot in first) == ["p0", "p1", "p2", "p3"] and len(again) == 4
    assert {(ballot.annotator, ballot.prompt_set, ballot.category) for ballot in kept} == {("ada", prompts.id, "law")}
    for ballot in again:
        assert ballot.repeat_of is not None
        assert {side.answer for side in ballot.sides} == {side.answer for side in ballots[ballot.repeat_of].sides}
    assert len(fake_endpoint.requests) == 8
    assert usable(kept)[1] == {"earlier answers were shown again": 4}


def test_a_prompt_without_two_answers_to_judge_is_done_and_a_skipped_one_comes_last(
    shared: Shared, ballots: Ballots, fake_endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a person would meet a prompt whose answers are always the same again and again."""
    monkeypatch.setattr("harness_serve.session.BLIND_S", 0.01)
    fake_endpoint.answer = lambda request: "Equal." if "Alike" in request.prompt else request.body["model"]
    prompts = PromptSet((Prompt("alike", "Alike?"), Prompt("one", "One?"), Prompt("two", "Two?")))
    session, handlers = Session(person="ada"), Handlers(shared, UNCHANGING, Lot(ballots), Study(prompts))

    async def worked() -> list[str]:
        asked = []
        for _ in range(5):
            await drained(handlers.follow(session, "Arena", "", *SETTINGS))
            asked += [turn.prompt for turn in session.turns]
            if len(asked) > 3:
                await drained(session.judge(shared, Verdict("tie")))
        return asked

    asked = asyncio.run(worked())
    skipped = [prompt for prompt in asked[:3] if prompt != "Alike?"]
    assert sorted(asked[:3]) == ["Alike?", "One?", "Two?"] and asked[3:] == skipped


def test_an_answer_that_says_who_it_is_is_flagged_and_not_ranked(
    shared: Shared, ballots: Ballots, fake_endpoint: FakeEndpoint
) -> None:
    fake_endpoint.answer = lambda request: f"I am Qwen, says {request.body['model']}."
    session = Session()
    session.begin_anew(NAMES, blind=True)

    async def judged() -> None:
        await ask(session, shared)
        await drained(session.judge(shared, Verdict("tie")))

    asyncio.run(judged())
    assert {side.reveals for ballot in ballots for side in ballot.sides} == {"I am Qwen"}
    assert usable(ballots)[1] == {"an answer says who it is": 1}


@pytest.mark.parametrize(
    ("answer", "words"),
    [("I'm Claude.", "I'm Claude."), ("I am a model trained by Acme!", "I am a model trained by Acme"),
     ("As house-style-dpo, I think", "house-style-dpo"), ("Hi, I am demo.", "I am demo"), ("This is a demo.", ""),
     ("I am Sorry", ""), ("I am not sure. It is Paris.", ""), ("My dear Emma, I'm glad.", ""), ("I'm Emma", "")],
)  # fmt: skip
def test_words_that_give_an_answer_away(answer: str, words: str) -> None:
    assert revealing_words(answer, ["demo", "house-style-dpo"], "You are Emma. Greet me.") == words


def test_tools_and_seed_are_sent_and_kept(shared: Shared, ballots: Ballots, fake_endpoint: FakeEndpoint) -> None:
    tools = ({"type": "function", "function": {"name": "look_up"}},)
    session = begun("base", "alpha")
    asyncio.run(drained(session.ask(shared, "Who?", "", Sampling(seed=7, tools=tools))))
    assert all(asked.body["seed"] == 7 and asked.body["tools"] == list(tools) for asked in fake_endpoint.requests)
    (ballot,) = ballots
    assert ballot.sampling["seed"] == 7 and ballot.sampling["tools"] == list(tools)


def test_a_failed_answer_makes_the_ballot_void(shared: Shared, ballots: Ballots, fake_endpoint: FakeEndpoint) -> None:
    def answer(request: Request) -> Reply:
        return Reply("fine") if request.body["model"] == "base" else Reply("out of memory", status=500)

    fake_endpoint.answer = answer
    session = begun("base", "alpha")
    asyncio.run(ask(session, shared))
    (ballot,) = ballots
    assert ballot.state == "void" and not session.turns[-1].is_open
    assert {side.variant: side.finish for side in ballot.sides} == {"base": "stop", "alpha": None}
    assert {answer.error for answer in session.turns[-1].answers} == {"", "out of memory"}


def test_answers_are_timed_where_they_arrive(
    ballots: Ballots, fake_endpoint: FakeEndpoint, wait_until: Callable[[Callable[[], object]], None]
) -> None:
    """Nothing of the page, not even its event loop that is held, makes a variant look slow."""
    session, shared = begun("base", "alpha"), Shared(client_of(fake_endpoint), ballots)

    async def held() -> None:
        news = session.ask(shared, "Who?", "", Sampling())
        await anext(news)
        requests = await asyncio.to_thread(fake_endpoint.next, 2, timeout_s=60)
        for request in requests:
            request.say("The heron.")
            request.end()
        answers = session.turns[-1].answers
        wait_until(lambda: all(answer.tokens for answer in answers))  # on the page's loop: nothing else runs on it
        assert all(answer.first_token_s is not None and answer.text == "The heron." for answer in answers)
        arrived = [(answer.first_token_s, answer.total_s) for answer in answers]
        await drained(news)
        assert [(answer.first_token_s, answer.total_s) for answer in answers] == arrived

    asyncio.run(held())


def test_nothing_is_drawn_while_nothing_new_can_be_seen(
    ballots: Ballots,
    fake_endpoint: FakeEndpoint,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[[Callable[[], object]], None],
) -> None:
    """A page that waits for first words costs the others nothing."""
    monkeypatch.setattr("harness_serve.session.REDRAW_S", 0.001)
    monkeypatch.setattr("harness_serve.session.UNCHANGED_S", 1e9)
    session, shared = begun("base", "alpha"), Shared(client_of(fake_endpoint), ballots)
    looks, visible = [], Session._visible
    monkeypatch.setattr(Session, "_visible", lambda *of: looks.append(of) or visible(*of))

    async def watched() -> int:
        news = session.ask(shared, "Who?", "", Sampling())
        await anext(news)
        requests = await asyncio.to_thread(fake_endpoint.next, 2, timeout_s=60)
        drawing = asyncio.ensure_future(anext(news))
        await asyncio.to_thread(wait_until, lambda: len(looks) > 20)
        assert not drawing.done()
        requests[0].say("The heron.")
        await drawing
        for request in requests:
            request.end()
        return len([None async for _ in news])

    assert asyncio.run(watched()) >= 1


def test_the_more_answers_stream_the_less_often_each_is_drawn(shared: Shared) -> None:
    """All pages together are drawn no more often with fifty people than with five; a long answer less often, too."""
    turn, long = (Turn("Who?", "", Sampling(), [Answer(), Answer("word " * times)]) for times in (1, 8_000))

    def drawings_a_second(people: int) -> float:
        shared.streaming.clear()
        shared.streaming.update(range(people))
        return people / pause_s(shared, turn)

    assert drawings_a_second(5) == pytest.approx(drawings_a_second(50))
    assert drawings_a_second(1) < drawings_a_second(5)
    shared.streaming.clear()
    assert pause_s(shared, long) == pytest.approx(5 * pause_s(shared, turn))


@pytest.mark.parametrize(
    "answer", ["word " * 20_000, "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 5_000, "*" * 40_000, "[" * 100_000],
    ids=["long", "table", "stars", "brackets"],
)  # fmt: skip
def test_long_answers_are_drawn_off_the_loop_and_not_read(
    shared: Shared, ballots: Ballots, fake_endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """Markdown is read in other threads than the page's loop, up to a length; what is longer is shown as it is."""
    read: list[tuple[int, bool]] = []
    renderer = markup._renderer()

    class Watched:
        def render(self, text: str) -> str:
            read.append((len(text), threading.current_thread() is threading.main_thread()))
            return str(renderer.render(text))

    monkeypatch.setattr(markup, "_renderer", Watched)
    short = "short *answer* of "
    fake_endpoint.answer = lambda request: answer if request.body["model"] == "base" else short + answer[:9_000]
    session, handlers = begun("base", "alpha"), Handlers(shared, UNCHANGING, Lot(ballots))

    async def asked() -> str:
        drawings = [drawn async for drawn in handlers.ask(session, "Compare", "Who?", "", *SETTINGS)]
        return "".join(str(getattr(part, "value", "")) for part in drawings[-1])

    shown = asyncio.run(asked())
    assert "short <em>answer</em>" in shown and '<div class="plain">' in shown
    assert read and all(length <= markup.LONGEST and not on_loop for length, on_loop in read)


def test_a_stopped_answer_makes_the_ballot_void(ballots: Ballots, fake_endpoint: FakeEndpoint) -> None:
    session, shared = begun("base", "alpha"), Shared(client_of(fake_endpoint), ballots)

    async def stopped() -> None:
        news = session.ask(shared, "Count.", "", Sampling())
        await anext(news)
        first, second = await asyncio.to_thread(fake_endpoint.next, 2, timeout_s=60)
        first.say("one, two")
        second.end(Reply("three"))
        finished = next(
            a
            for a, name in zip(session.turns[-1].answers, session.variants, strict=True)
            if name == second.body["model"]
        )
        while finished.finish is None:
            await anext(news)
        session.stop()
        await drained(news)

    asyncio.run(stopped())
    (ballot,) = ballots
    assert ballot.state == "void" and sorted(side.answer for side in ballot.sides) == ["", "three"]
    assert not session.streaming and not session.turns[-1].is_open


def test_a_blind_conversation_shows_nothing_before_the_verdict(shared: Shared, ballots: Ballots) -> None:
    """No name, no figure, no part of an answer before both are there; both are written out in the same steps."""
    session = Session()
    session.begin_anew(NAMES, blind=True)
    drawn: list[list[str]] = []

    async def judged() -> None:
        async for _ in session.ask(shared, "Who?", "", Sampling()):
            turn = session.turns[-1]
            drawn.append([column_html(session, column) for column in range(2)])
            assert turn.share == 0 or all(answer.finish for answer in turn.answers)
        assert session.is_hidden and session.names == ["A", "B"]
        await drained(session.judge(shared, Verdict("best", 1)))
        assert session.is_hidden
        await session.close(shared, "")

    asyncio.run(judged())
    pages = "".join(page for pair in drawn for page in pair)
    assert "tokens" not in pages and "first" not in pages and 'data-variant="A"' in pages
    assert not any(name in page for page in drawn[0] for name in NAMES)
    lengths = [[len(page) for page in pair] for pair in drawn]
    begun_at = [next(at for at, pair in enumerate(lengths) if pair[side] != lengths[0][side]) for side in (0, 1)]
    assert abs(begun_at[0] - begun_at[1]) <= 2 and len(drawn) > 20
    (ballot,) = ballots
    assert ballot.blind and ballot.verdict == Verdict("best", 1) and (ballot.latency_s or 0) > 0
    assert not session.is_hidden and session.names == session.variants
    assert all(name in confirmation_html(session) for name in session.variants)


def test_a_blind_pair_is_drawn_by_lot() -> None:
    pairs: Counter[tuple[str, ...]] = Counter()
    for seed in range(1200):
        session = Session()
        session.begin_anew(NAMES, seed, blind=True)
        pairs[tuple(session.variants)] += 1
    assert len(pairs) == 12 and stats.chisquare(list(pairs.values())).pvalue > 0.001


def test_a_skipped_round_is_void(shared: Shared, ballots: Ballots) -> None:
    session = Session()
    session.begin_anew(NAMES, blind=True)

    async def skipped() -> None:
        await ask(session, shared)
        await session.close(shared, "skipped")
        await drained(session.judge(shared, Verdict("tie")))

    asyncio.run(skipped())
    assert [(ballot.state, ballot.verdict, ballot.note) for ballot in ballots] == [("void", None, "skipped")]


@pytest.mark.parametrize(("answer", "note"), [("", "an answer is empty"), ("the same", "the answers are the same")])
def test_there_is_nothing_to_judge(
    shared: Shared, ballots: Ballots, fake_endpoint: FakeEndpoint, answer: str, note: str
) -> None:
    fake_endpoint.answer = lambda request: answer
    session = begun("base", "alpha")
    asyncio.run(ask(session, shared))
    assert session.turns[-1].note == note and note in confirmation_html(session)
    assert [ballot.state for ballot in ballots] == ["void"] and not session.turns[-1].is_open


def test_one_variant_is_no_comparison(shared: Shared, ballots: Ballots) -> None:
    session = begun("base")
    asyncio.run(ask(session, shared))
    assert len(ballots) == 0 and not session.turns[-1].is_open and session.turns[-1].answers[0].text == "base 2"


@pytest.mark.parametrize("operation", ["open", "record"])
def test_a_comparison_that_cannot_be_kept_takes_no_verdict(  # type: ignore[no-untyped-def]
    shared: Shared, ballots: Ballots, monkeypatch, capsys, operation: str
) -> None:
    """The answers are shown all the same; the page says that it was not kept, and the terminal why."""

    def fail(*_: object, **__: object) -> None:
        raise HarnessError("/secret/votes.db: disk full")

    monkeypatch.setattr(ballots, operation, fail)
    session = begun("base", "alpha")
    asyncio.run(ask(session, shared))
    turn = session.turns[-1]
    assert turn.is_ready and not turn.is_open and turn.problem == "comparison"
    assert "a comparison was not kept: /secret/votes.db: disk full" in capsys.readouterr().err
    assert [ballot.state for ballot in ballots] == ([] if operation == "open" else ["void"])


def test_a_verdict_that_was_not_kept_can_be_given_again(  # type: ignore[no-untyped-def]
    shared: Shared, ballots: Ballots, monkeypatch, capsys
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise HarnessError("disk full")

    session = begun("base", "alpha")

    async def judged() -> Ballot:
        await ask(session, shared)
        with monkeypatch.context() as patch:
            patch.setattr(ballots, "vote", fail)
            await drained(session.judge(shared, Verdict("tie")))
        assert session.turns[-1].problem == "verdict" and session.turns[-1].is_open
        await drained(session.judge(shared, Verdict("bad")))
        return next(iter(ballots))

    assert (
        asyncio.run(judged()).verdict == Verdict("bad")
        and "a verdict was not kept: disk full" in capsys.readouterr().err
    )


def test_votes_of_version_1_are_served_on(tmp_path: Path, fake_endpoint: FakeEndpoint) -> None:
    """A server of today opens the file of an older one, and adds to it."""
    shutil.copy(Path(__file__).parents[1] / "data" / "votes-1.db", tmp_path / "votes.db")
    ballots = Ballots(str(tmp_path / "votes.db"))
    fake_endpoint.answer = lambda request: f"Yes, says {request.body['model']}."
    session = begun("base", "alpha")
    asyncio.run(ask(session, Shared(client_of(fake_endpoint), ballots)))
    assert [ballot.state for ballot in ballots] == ["revealed"] * 5 + ["open"]


def test_votes_are_browsed_newest_first_by_who_may_see_them(ballots: Ballots, monkeypatch: pytest.MonkeyPatch) -> None:
    """People see their own; few ballots are read at once, by words as well."""
    monkeypatch.setattr("harness_serve.browsing.AT_ONCE", 3)
    for number in range(50):
        asked = [{"role": "user", "content": f"Wörter {number}?"}]
        sides = [Side("base", None, asked, "Ein Reiher.", "stop"), Side("alpha", None, asked, f"Nr. {number}.", "stop")]
        person = "ada" if number % 5 else "ben"
        id = ballots.open(sides, seed=0, sampling={}, annotator=person, blind=True)
        ballots.vote(id, Verdict("best", number % 2), reveal=number != 49)
    numbers = [ballot.id for ballot in Filter().of(ballots, "")]
    assert numbers == list(range(49, 0, -1))  # the last one is not closed
    page, first, count = Filter().page(ballots, "", 1)
    assert [ballot.id for ballot in page] == numbers[20:40] and (first, count) == (20, 49)
    assert Filter().page(ballots, "", 99)[1:] == (40, 49)
    assert {ballot.annotator for ballot in Filter().of(ballots, "ben")} == {"ben"}
    assert Filter(person="ada").page(ballots, "ben", 0) == ([], 0, 0) and not [*Filter("ada").of(ballots, "ben")]
    page, _, count = Filter(text="WÖRTER 4").page(ballots, "", 0)
    assert [question_of(ballot) for ballot in page] == [*(f"Wörter {n}?" for n in range(48, 39, -1)), "Wörter 4?"]
    assert count == 10 and Filter(variant="gone").page(ballots, "", 0)[2] == 0
    shown = ballots_html(ballots, Filter(text="Nr. 7."), "").html
    assert "1 to 1 of 1" in shown and "/votes.jsonl?text=Nr.+7." in shown
    assert [ballots_html(ballots, Filter(), "", number).is_last for number in range(3)] == [False, False, True]
    assert [json.loads(line)["id"] for line in rows(Filter(text="Nr. 7.").of(ballots, ""))] == [8]


@dataclass
class Changing:
    """An engine whose variants change."""

    endpoint: Endpoint
    variants: Sequence[Variant] = ()
    notice: str = ""


def test_a_conversation_with_a_variant_that_is_gone_asks_nobody(
    fake_endpoint: FakeEndpoint, ballots: Ballots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the arena another pair is drawn instead, which tells nobody who is gone."""
    monkeypatch.setattr("harness_serve.session.BLIND_S", 0.01)
    fake_endpoint.answer = lambda request: request.body["model"]
    served = Changing(Endpoint(fake_endpoint.url, ("base", "alpha", "beta")))
    catalogue = Catalogue(served)
    handlers = Handlers(Shared(client_of(fake_endpoint), ballots, catalogue.known), catalogue, Lot(ballots))
    warned: list[str] = []
    monkeypatch.setattr(handlers.gr, "Warning", warned.append)
    monkeypatch.setattr(handlers.gr, "Info", lambda _: None)
    compare, arena = begun("base", "alpha"), Session()
    arena.begin_anew(("alpha", "base"), blind=True)
    version = catalogue.version
    served.endpoint = Endpoint(fake_endpoint.url, ("base", "beta", "gamma"))

    async def asked() -> None:
        await drained(handlers.ask(compare, "Compare", "Who?", "", *SETTINGS))
        await drained(handlers.ask_again(compare, "Compare", "", *SETTINGS))
        await drained(handlers.ask(arena, "Arena", "Who?", "", *SETTINGS))

    asyncio.run(asked())
    assert not compare.turns and warned and "Not served any more: alpha" in warned[0]
    assert "alpha" not in arena.variants and len(arena.turns) == 1 and len(fake_endpoint.requests) == 2
    assert catalogue.version != version and catalogue.known().first_picks == ["base", "beta"]


def test_the_arena_draws_no_variant_that_is_left_out(shared: Shared, ballots: Ballots) -> None:
    handlers = Handlers(shared, UNCHANGING, Lot(ballots), Study(left_out=frozenset({"base"})))
    drawn: Counter[str] = Counter()

    async def begun_often() -> None:
        for _ in range(60):
            session = Session()
            await handlers.begin_anew(session, "", [], "Arena")
            drawn.update(session.variants)

    asyncio.run(begun_often())
    assert set(drawn) == {"alpha", "beta", "gamma"}
