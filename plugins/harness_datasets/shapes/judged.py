"""The table of shapes with judged answers. `table` says how a record is written."""

from __future__ import annotations

from harness import Shape
from harness.data import within
from harness_datasets.instructgpt import RANKED
from harness_datasets.keys import MESSAGE
from harness_datasets.shapes import comparisons

_PROMPT = "prompt|question|instruction|problem"
_RANKED = "completions=responses|candidates|outputs|generations|answers|completions"
_SWIFT = (*within("messages", MESSAGE), "system?", "tools?", "tools.*", "id?")
_JUDGED = (  # names that say which of two answers is the better
    *(("pos", "neg"), ("winner", "loser"), ("win", "lose"), ("good", "bad")),
    *(("better", "worse"), ("preferred", "dispreferred"), ("preferred", "rejected"), ("accepted", "rejected")),
    *(("y_w", "y_l"), ("chosen_response", "rejected_response"), ("chosen_answer", "rejected_answer")),
    *(("response_chosen", "response_rejected"), ("accept", "reject"), ("best", "worst")),
    *(("good_answer", "bad_answer"), ("good_response", "bad_response"), ("winning_response", "losing_response")),
    *(("preferred_response", "dispreferred_response"), ("preferred_response", "rejected_response")),
)
_ARENA_TURN = ("role", "content", "-num_tokens", "-user", "-id")
_PKU = tuple(
    f"-{name}"
    for side in "01"
    for name in (
        *(f"is_response_{side}_safe", f"response_{side}_source", f"response_{side}_harm_category"),
        *(f"response_{side}_severity_level", f"response_{side}_sha256"),
    )
)
_FEEDBACK = ("-correctness", "-coherence", "-complexity", "-verbosity")

# fmt: off
COMPARISONS = (
    Shape(
        "judged_pair", "a prompt and two answers, whose names say which is the better: `pos` and `neg`, ...",
        "preferences",
        tuple(
            (*prompt, f"chosen={better}", f"rejected={worse}", "system?", "history?", "margin?", "id?")
            for prompt in ((f"prompt={_PROMPT}|input|history|x",), ("instruction", "input?"))
            for better, worse in _JUDGED
        ),
    ),
    Shape(
        "two_answers", "a prompt, two answers, and a verdict that names the better: `A`, `response_b`, `tie`, ...",
        "preferences",
        tuple(
            (
                f"prompt={_PROMPT}", f"{first.lower()}={word}{joint}{first}", f"{second.lower()}={word}{joint}{second}",
                "verdict=preference|winner|preferred|better|verdict|choice", "system?", "id?",
            )
            for word in ("response", "answer", "output", "completion")
            for joint in ("_", "")
            for first, second in (("a", "b"), ("A", "B"), ("1", "2"), ("0", "1"))
        ), rewrite=comparisons.by_verdict,
    ),
    Shape(
        "ranked_answers", "a prompt and answers with scores or ranks, under further usual names", "instructgpt",
        tuple(
            (
                f"prompt={_PROMPT}|query", *within(_RANKED, RANKED),
                *order, "system?", "id?",
            )
            for order in (
                ("scores=scores|rewards|ratings|score|reward|rating",), ("ranks=ranks|rank",), ("ranking",), (),
            )
        ), rewrite=comparisons.by_ranking, rank=-1,
    ),
    Shape(
        "arena", "Chatbot Arena: `conversation_a`, `conversation_b` and the `winner`", "preferences",
        ((
            *within("conversation_a", _ARENA_TURN), *within("conversation_b", _ARENA_TURN), "winner",
            *(f"-{name}" for name in ("question_id", "model_a", "model_b", "judge", "turn", "anony", "language")),
        ),),
        metadata=(
            *("tstamp", "openai_moderation", "toxic_chat_tag", "is_code", "is_refusal", "dedup_tag", "category_tag"),
            *("judge_hash", "timestamp", "id", "evaluation_session_id", "evaluation_order", "conv_metadata"),
        ), rewrite=comparisons.arena,
    ),
    Shape(
        "arena_55k", "Arena's 55k preferences: prompts and answers as lists of texts", "preferences",
        ((
            *("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"),
            *("-id", "-model_a", "-model_b"),
        ),), rewrite=comparisons.arena_texts,
    ),
    Shape(
        "helpsteer2", "HelpSteer 2: answers to a prompt ranked by `helpfulness`", "instructgpt",
        (
            ("prompt", "response", "helpfulness", *_FEEDBACK),
            ("prompt", *within("answers", ("response", "helpfulness", *_FEEDBACK))),
        ), rewrite=comparisons.by_helpfulness, gather=comparisons.gather_by_prompt,
    ),
    Shape(
        "helpsteer2_preference", "HelpSteer 2's preferences, with their strength as margin", "preferences",
        ((
            *("prompt", "first=response_1", "second=response_2", "strength=preference_strength", "-split"),
            *("-preference_statement", "-preference_elaboration", "-three_most_similar_preferences"),
            "-all_preferences_unprocessed",
        ),), rewrite=comparisons.by_strength,
    ),
    Shape(
        "helpsteer3", "HelpSteer 3's preferences, with their strength as margin", "preferences",
        ((
            *("prompt=context", *within("context", ("role", "content")), "first=response1", "second=response2"),
            *("strength=overall_preference", "-individual_preference", "-domain", "-language"),
        ),), rewrite=comparisons.by_strength,
    ),
    Shape(
        "nectar", "Nectar: a transcript and ranked `answers`", "instructgpt",
        ((
            *("prompt", *within("answers", ("answer", "rank", "-model")), "-turns", "-num_responses", "-source"),
            "-good_natured",
        ),), rewrite=comparisons.nectar,
    ),
    Shape(
        "shp", "Stanford Human Preferences", "preferences",
        ((
            *("prompt=history", "first=human_ref_A", "second=human_ref_B", "better=labels", "-post_id", "-domain"),
            *("-upvote_ratio", "-c_root_id_A", "-c_root_id_B", "-created_at_utc_A", "-created_at_utc_B"),
            *("-score_A", "-score_B", "-seconds_difference", "-score_ratio"),
        ),), rewrite=comparisons.by_first_is_better,
    ),
    Shape(
        "pku_helpful", "PKU-SafeRLHF: the more helpful of two answers is chosen", "preferences",
        ((
            *("prompt", "first=response_0", "second=response_1", "better=better_response_id", "-safer_response_id"),
            *("-prompt_source", *_PKU),
        ),), rewrite=comparisons.by_index,
    ),
    Shape(
        "pku_harmless", "PKU-SafeRLHF: the safer of two answers is chosen", "preferences",
        ((
            *("prompt", "first=response_0", "second=response_1", "better=safer_response_id", "-better_response_id"),
            *("-prompt_source", *_PKU),
        ),), rewrite=comparisons.by_index,
    ),
    Shape(
        "tldr", "comparisons of summaries (summarize from feedback): posts, and articles of CNN/DM", "preferences",
        ((
            *within("info", ("subreddit", "title", "post", "article", "-id", "-site")),
            *(*within("summaries", ("text", "-policy", "-note")), "better=choice", "-worker", "-batch", "-split"),
            "-extra",
        ),), rewrite=comparisons.tldr,
    ),
    Shape(
        "stack_exchange_pairs", "stack-exchange-paired: `response_j` is preferred to `response_k`", "preferences",
        (("prompt=question", "chosen=response_j", "rejected=response_k", "-qid", "-date", "-metadata"),),
    ),
    Shape(
        "stack_exchange_scores", "stack-exchange-preferences: answers ranked by `pm_score`", "instructgpt",
        ((
            "prompt=question", *within("answers", (
                "text", "pm_score", "-answer_id", "-author", "-author_id", "-author_profile", "-selected",
            )), "-qid", "-date", "-metadata",
        ),), rewrite=comparisons.by_score,
    ),
    Shape(
        "swift_rejected", "ms-swift: messages and a `rejected_response`, or `rejected_messages`", "preferences",
        (
            (*_SWIFT, "rejected=rejected_response"),
            (*_SWIFT, "rejected=rejected_messages", *within("rejected_messages", MESSAGE)),
        ), rewrite=comparisons.rejected_turns,
    ),
    Shape(
        "swift_rejected_query", "ms-swift: `query`, `response` and a `rejected_response`", "preferences",
        (
            ("prompt=query", "chosen=response", "rejected=rejected_response|rejected_output", "system?", "history?"),
            (
                *("instruction", "input?", "chosen=output|response", "rejected=rejected_output|rejected_response"),
                *("system?", "history?"),
            ),
        ),
    ),
)
# fmt: on
