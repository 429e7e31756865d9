"""Shapes: a row of each, and exactly what it becomes; what `auto` makes of its file; and that no column is lost."""

import json
from typing import Any

import pytest
from harness_datasets import flan
from harness_datasets.shapes.table import SHAPES

import harness
from harness.data import convert_row, load_source
from harness.data.convert.fields import alternatives_of
from harness.data.convert.prompts import prompts_of
from harness.data.convert.recognise import choose
from harness.plugins import Plugins
from harness.recipe import DataSource
from tests.following import text_of


@pytest.fixture(scope="module")
def datasets():
    return Plugins().datasets


def talk(*turns, tools=(), id=""):
    """A conversation of (role, text or Message) pairs."""
    return harness.Conversation(tuple(map(message, turns)), tools, id=id)


def message(turn):
    return turn if isinstance(turn, harness.Message) else harness.Message(*turn)


def called(*calls, text="", thinks="", train=None):
    made = tuple(harness.ToolCall(*call) for call in calls)
    return harness.Message("assistant", text, made, train=train, reasoning=thinks)


def result(text, id):
    return harness.Message("tool", text, tool_call_id=id)


def prefer(prompt, chosen, rejected, **more):
    """A preference between two answers, or lists of turns, to a prompt."""
    turns = [tuple(map(message, part if isinstance(part, list) else [(role, part)])) for role, part in (
        ("user", prompt), ("assistant", chosen), ("assistant", rejected),
    )]  # fmt: skip
    return harness.Preference(*turns, **more)


def tool(name, **more):
    return {"type": "function", "function": {"name": name, **more}}


def thought(thoughts, answer):
    return harness.Message("assistant", answer, reasoning=thoughts)


QA = talk(("user", "q"), ("assistant", "a"))
ASKED = [{"role": "user", "content": "q"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
MINIMAL = {"id": 1, "annotator": 1, "annotation_id": 5, "created_at": "x", "updated_at": "y", "lead_time": 3.2}
NODE: dict[str, Any] = {
    "author": {"role": "user"},
    "content": {"content_type": "text", "parts": ["q"]},
    "recipient": "all",
}


def node(role, text, parent, *children, **more):
    content = {"content_type": "text", "parts": [text]}
    said = {"author": {"role": role, "name": None, "metadata": {}}, "content": content, "recipient": "all", **more}
    return {"id": "x", "message": said, "parent": parent, "children": list(children)}


def pku(**more):
    return {
        "prompt": "q", "response_0": "a", "response_1": "b", "is_response_0_safe": True, "is_response_1_safe": False,
        "better_response_id": 1, "safer_response_id": 0, **more,
    }  # fmt: skip


# (shape, row, what it becomes). An id of None is not compared.
ROWS: list[tuple[str, Any, Any]] = [
    ("gemini", {"systemInstruction": {"role": "system", "parts": [{"text": "s"}]}, "contents": [
        {"role": "user", "parts": [{"text": "q"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"city": "Lima"}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"sun": 1}}}]},
        {"role": "model", "parts": [{"text": "Sunny"}, {"text": "."}]},
    ], "tools": [{"functionDeclarations": [{"name": "f", "parameters": CITY}]}]}, talk(
        ("system", "s"), ("user", "q"), called(("f", {"city": "Lima"}, "call00001")), result('{"sun": 1}', "call00001"),
        ("assistant", "Sunny."), tools=(tool("f", parameters=CITY),),
    )),
    ("gemini", {"contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "a"}]}]},
     QA),
    ("bedrock", {"schemaVersion": "bedrock-conversation-2024", "system": [{"text": "s"}], "messages": [
        {"role": "user", "content": [{"text": "q"}]},
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "f", "input": {"city": "Lima"}}}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "t", "content": [{"text": "sun"}]}}]},
        {"role": "assistant", "content": [{"text": "Sunny."}]},
    ], "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": CITY}}}]}}, talk(
        ("system", "s"), ("user", "q"), called(("f", {"city": "Lima"}, "t")), result("sun", "t"),
        ("assistant", "Sunny."), tools=(tool("f", parameters=CITY),),
    )),
    ("cohere",
     {"messages": [{"role": "System", "content": "s"}, {"role": "User", "content": "q"},
                   {"role": "Chatbot", "content": "a"}]},
     talk(("system", "s"), ("user", "q"), ("assistant", "a"))),
    ("openai_responses", {"input": [
        {"role": "user", "content": [{"type": "input_text", "text": "q"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "before"}]},
        {"role": "user", "content": "q2"},
    ], "output": [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"city": "Lima"}'},
        {"type": "function_call_output", "call_id": "c", "output": "sun"},
        {"type": "message", "role": "assistant",
         "content": [{"type": "output_text", "text": "Sunny.", "annotations": []}]},
    ], "instructions": "s", "tools": [{"type": "function", "name": "f", "parameters": CITY}]}, talk(
        ("system", "s"), ("user", "q"), harness.Message("assistant", "before", train=False), ("user", "q2"),
        called(("f", {"city": "Lima"}, "c"), thinks="t"), result("sun", "c"), ("assistant", "Sunny."),
        tools=(tool("f", parameters=CITY),),
    )),
    ("chat_log", {"conversation_id": "c", "model": "m", "turn": 1, "language": "English",
                  "openai_moderation": [{"flagged": False}], "redacted": False,
                  "conversation": [*ASKED, {"role": "assistant", "content": "a"}]}, QA),
    ("chat_log", {"conversation_hash": "h", "model": "m", "timestamp": "2023", "toxic": False, "state": "Lima",
                  "country": "Peru", "hashed_ip": "x", "header": {"user-agent": "y"}, "turn": 1, "language": "English",
                  "redacted": False, "detoxify_moderation": [{"toxicity": 0.1}], "openai_moderation": [],
                  "conversation": [
                      {"role": "user", "content": "q", "language": "English", "toxic": False, "redacted": False,
                       "turn_identifier": 1, "country": "Peru", "hashed_ip": "x", "header": {"user-agent": "y"},
                       "state": "Lima", "timestamp": None},
                      {"role": "assistant", "content": "a", "language": "English", "toxic": False, "redacted": False}]},
     QA),
    ("exchanges", {"source": "x",
                   "conversation": [{"system": "s", "input": "q", "output": "a"}, {"input": "q2", "output": "a2"}]},
     talk(("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "q2"), ("assistant", "a2"))),
    ("exchanges", {"conversation_id": 2, "category": "Chat", "dataset": "moss",
                   "conversation": [{"human": "q", "assistant": "a"}, {"human": "q2", "assistant": "a2"}]},
     talk(("user", "q"), ("assistant", "a"), ("user", "q2"), ("assistant", "a2"))),
    ("hermes", {"id": "1", "conversations": [
        {"from": "system",
         "value": 'Help. <tools>[{"type": "function", "function": {"name": "f", "parameters": {}}}]</tools>'},
        {"from": "human", "value": "q"},
        {"from": "gpt", "value": '<tool_call>\n{"name": "f", "arguments": {"city": "Lima"}}\n</tool_call>'},
    ]}, talk(("system", "Help."), ("user", "q"), called(("f", {"city": "Lima"})), tools=(tool("f", parameters={}),),
             id="1")),
    ("swift_tools", {"tools": '[{"name": "f"}]', "messages": [
        {"role": "user", "content": "q"},
        {"role": "tool_call", "content": '{"name": "f", "arguments": {"city": "Lima"}}'},
        {"role": "tool_response", "content": "sun"}, {"role": "assistant", "content": "Sunny."},
    ]}, talk(("user", "q"), called(("f", {"city": "Lima"}, "call00001")), result("sun", "call00001"),
             ("assistant", "Sunny."), tools=(tool("f"),))),
    ("xlam", {"id": 1, "query": "q", "answers": '[{"name": "f", "arguments": {"city": "Lima"}}]', "tools": json.dumps([{
        "name": "f", "description": "d", "parameters": {
            "city": {"type": "str", "description": "c"},
            "days": {"type": "int, optional", "description": "n", "default": 1}},
    }])}, talk(("user", "q"), called(("f", {"city": "Lima"})), id="1", tools=(tool("f", description="d", parameters={
        "type": "object", "required": ["city"], "properties": {
            "city": {"type": "string", "description": "c"},
            "days": {"type": "integer", "description": "n", "default": 1}},
    }),))),
    ("toolace",
     {"system": 'You compose functions. Here is a list of functions in JSON format that you can invoke:\n'
                '[{"name": "Get Sun", "parameters": {}}]\n'
                'Put it in the format of [func1(params_name=params_value)].',
      "conversations": [
        {"from": "user", "value": "q"},
        {"from": "assistant", "value": '[Get Sun(city="Lima (Peru)", days=[1, 2]), Get Sun(now=true)]'},
        {"from": "tool", "value": '[{"name": "Get Sun", "results": 1}, {"name": "Get Sun", "results": 2}]'},
        {"from": "assistant", "value": "Sunny."},
    ]}, talk(("system", "You compose functions."), ("user", "q"),
             called(("Get Sun", {"city": "Lima (Peru)", "days": [1, 2]}, "call00001"),
                    ("Get Sun", {"now": True}, "call00002")),
             result('{"name": "Get Sun", "results": 1}', "call00001"),
             result('{"name": "Get Sun", "results": 2}', "call00002"),
             ("assistant", "Sunny."), tools=(tool("Get Sun", parameters={}),))),
    ("chatgpt_export", {"title": "t", "create_time": 1.0, "update_time": 2.0, "current_node": "c",
                        "conversation_id": "z", "mapping": {
        "r": {"id": "r", "message": None, "parent": None, "children": ["a"]}, "a": node("user", "q", "r", "b"),
        "b": node("assistant", "a", "a", "c", "d"), "c": node("user", "q2", "b", "e"),
        "e": node("assistant", "a2", "c"), "d": node("user", "q3", "b", "f"), "f": node("assistant", "a3", "d"),
    }}, [talk(("user", "q"), ("assistant", "a"), ("user", "q2"), ("assistant", "a2")),
         talk(("user", "q"), harness.Message("assistant", "a", train=False), ("user", "q3"), ("assistant", "a3"))]),
    ("claude_export", {"uuid": "u", "name": "n", "created_at": "2025", "updated_at": "2025", "account": {"uuid": "z"},
                       "chat_messages": [
        {"uuid": "1", "text": "q", "sender": "human", "created_at": "x", "content": [{"type": "text", "text": "q"}],
         "attachments": [{"file_name": "f.txt", "extracted_content": "notes"}], "files": []},
        {"uuid": "2", "text": "a", "sender": "assistant", "content": [{"type": "text", "text": "a"}]},
    ]}, talk(("user", "notes\n\nq"), ("assistant", "a"), id="u")),
    ("langsmith", {"id": "1", "inputs": {"messages": [{"type": "system", "data": {"content": "s"}}, ["human", "q"]]},
                   "outputs": {"generations": [[{"text": "a", "message": {
                       "lc": 1, "type": "constructor", "id": ["x", "AIMessage"], "kwargs": {"content": "a"}}}]]},
                   "created_at": "2025"},
     talk(("system", "s"), ("user", "q"), ("assistant", "a"), id="1")),
    ("langsmith", {"inputs": {"question": "q"}, "outputs": {"answer": "a"}, "dataset_id": "d"}, QA),
    ("argilla_answers", {"id": "1", "status": "completed", "fields": {"instruction": "q"}, "metadata": {"k": "v"},
                         "responses": {
        "answer": [{"value": "a", "user_id": "u", "status": "submitted"}, {"value": "no", "status": "discarded"}]}},
     talk(*QA.messages, id="1")),
    ("argilla_rankings", {"id": "1", "fields": {"prompt": "q", "response-1": "a", "response-2": "b"},
                          "responses": {"ranking": [
        {"status": "submitted", "value": [{"value": "response-2", "rank": 1}, {"value": "response-1", "rank": 2}]}]}},
     prefer("q", "b", "a", margin=1.0)),
    ("label_studio_answers", {"id": 1, "data": {"text": "q"}, "annotations": [
        {"id": 1, "result": [{"from_name": "r", "to_name": "t", "type": "textarea", "value": {"text": ["a"]}}]}]}, QA),
    ("label_studio_feedback", {"id": 1, "data": {"prompt": "q", "text": "a"}, "annotations": [
        {"id": 1, "result": [{"from_name": "r", "to_name": "t", "type": "choices", "value": {"choices": ["good"]}}]}]},
     harness.Preference((message(("user", "q")),), (message(("assistant", "a")),), ())),
    ("label_studio_labels", {"id": 1, "data": {"text": "I loved it."}, "annotations": [
        {"id": 1,
         "result": [{"from_name": "r", "to_name": "t", "type": "choices", "value": {"choices": ["Positive"]}}]}]},
     list(convert_row(flan.DATASET, {"text": "I loved it.", "label": "Positive"}))),
    ("label_studio_pairs", {"id": 1, "data": {"prompt": "q", "answer1": "a", "answer2": "b"}, "annotations": [
        {"id": 1, "result": [{"from_name": "r", "to_name": "t", "type": "pairwise", "value": {"selected": "right"}}]}]},
     prefer("q", "b", "a")),
    ("question_answer", {"text_input": "q", "output": "a"}, QA),
    ("question_answer", {"problem": "q", "solution": "a", "system_prompt": "s"}, talk(("system", "s"), *QA.messages)),
    ("worked", {"question": "4 boxes of 6?", "solution": "4 * 6 = 24.", "answer": "24"},
     talk(("user", "4 boxes of 6?"), ("assistant", "4 * 6 = 24.\n\n24"))),
    ("metamath", {"type": "GSM_AnsAug", "query": "q", "original_question": "o", "response": "a"}, QA),
    ("open_math_instruct", {"question": "q", "expected_answer": "1", "predicted_answer": "1", "error_message": "",
                            "is_correct": True, "generation_type": "masked", "dataset": "gsm8k",
                            "generated_solution": "a"}, QA),
    ("open_math_instruct", {"question": "q", "expected_answer": "1", "is_correct": False, "generated_solution": "a"},
     []),
    ("open_math_instruct",
     {"problem": "q", "generated_solution": "a", "expected_answer": "1", "problem_source": "math"}, QA),
    ("magicoder", {"lang": "python", "raw_index": 1, "index": 2, "seed": "x", "openai_fingerprint": "f", "problem": "q",
                   "solution": "a"}, QA),
    ("s1k", {"solution": "5", "question": "q", "cot_type": "math", "source_type": "x", "metadata": "{}", "cot": None,
             "thinking_trajectories": ["t"], "attempt": "a"}, talk(("user", "q"), thought("t", "a"))),
    ("s1k_1_1", {"solution": "5", "question": "q", "cot_type": "math", "source_type": "x", "metadata": "{}",
                 "gemini_thinking_trajectory": "t", "gemini_attempt": "a", "deepseek_thinking_trajectory": "t2",
                 "deepseek_attempt": "a2", "gemini_grade": "Yes"},
     [talk(("user", "q"), thought("t", "a")), talk(("user", "q"), thought("t2", "a2"))]),
    ("medical_o1", {"Question": "q", "Complex_CoT": "t", "Response": "a"}, talk(("user", "q"), thought("t", "a"))),
    ("firefly", {"kind": "Poetry", "input": "q", "target": "a"}, QA),
    ("arena", {"question_id": "q", "model_a": "m", "model_b": "n", "winner": "model_b", "judge": "arena_user",
               "turn": 1, "anony": True, "language": "English", "tstamp": 1.0, "openai_moderation": {},
               "toxic_chat_tag": {"t": {"flagged": False}},
               "conversation_a": [*ASKED, {"role": "assistant", "content": "a"}],
               "conversation_b": [*ASKED, {"role": "assistant", "content": "b"}]}, prefer("q", "b", "a")),
    ("arena", {"model_a": "m", "model_b": "n", "winner": "tie (bothbad)",
               "conversation_a": [*ASKED, {"role": "assistant", "content": "a"}],
               "conversation_b": [*ASKED, {"role": "assistant", "content": "b"}]}, []),
    ("arena_55k", {"id": 1, "model_a": "m", "model_b": "n", "prompt": '["q"]', "response_a": '["a"]',
                   "response_b": '["b"]', "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
     prefer("q", "a", "b")),
    ("helpsteer2_preference",
     {"split": "train", "prompt": "q\n<extra_id_1>Assistant\nx\n<extra_id_1>User\ny", "response_1": "a",
                               "response_2": "b", "preference_strength": -2, "preference_statement": "s"},
     prefer([("user", "q"), ("assistant", "x"), ("user", "y")], "a", "b", margin=2.0)),
    ("helpsteer3", {"domain": "code", "language": "python", "context": ASKED, "response1": "a", "response2": "b",
                    "overall_preference": 3, "individual_preference": [{"score": 3}]},
     prefer("q", "b", "a", margin=3.0)),
    ("helpsteer3", {"context": ASKED, "response1": "a", "response2": "b", "overall_preference": 0}, []),
    ("nectar", {"prompt": "\n\nHuman: x\n\nAssistant: y\n\nHuman: q\n\nAssistant: ", "turns": 2, "num_responses": 2,
                "source": ["s"], "good_natured": True,
                "answers": [{"answer": "b", "model": "m", "rank": 2.0}, {"answer": "a", "model": "n", "rank": 1.0}]},
     prefer([("user", "x"), ("assistant", "y"), ("user", "q")], "a", "b", margin=1.0)),
    ("shp", {"post_id": "p", "domain": "askdocs", "history": "q", "human_ref_A": "a", "human_ref_B": "b", "labels": 0,
             "score_A": 3, "score_B": 9, "upvote_ratio": 0.9, "score_ratio": 3.0}, prefer("q", "b", "a")),
    ("pku_helpful", pku(), prefer("q", "b", "a")),
    ("pku_harmless", pku(), prefer("q", "a", "b")),
    ("tldr", {"info": {"id": "i", "post": "p", "title": "t", "subreddit": "r"}, "summaries": [
        {"text": " a", "policy": "sup", "note": None}, {"text": " b", "policy": "ref"}], "choice": 1, "worker": "w",
        "batch": "x", "split": "train", "extra": {"confidence": 5}},
     prefer("SUBREDDIT: r/r\n\nTITLE: t\n\nPOST: p\n\nTL;DR:", "b", "a")),
    ("stack_exchange_pairs", {"qid": 1, "question": "q", "date": "2020", "metadata": ["https://x"], "response_j": "a",
                              "response_k": "b"},
     prefer("q", "a", "b")),
    ("stack_exchange_scores", {"qid": 1, "question": "q", "date": "2020", "metadata": ["x"], "answers": [
        {"answer_id": 1, "author": "x", "pm_score": 1, "selected": False, "text": "b"},
        {"answer_id": 2, "pm_score": 4, "text": "a"}]},
     prefer("q", "a", "b", margin=3.0)),
    ("swift_rejected", {"messages": [*ASKED, {"role": "assistant", "content": "a"}], "rejected_response": "b"},
     prefer("q", "a", "b")),
    ("swift_rejected", {"messages": [*ASKED, {"role": "assistant", "content": "a"}],
                        "rejected_messages": [*ASKED, {"role": "assistant", "content": "b"}]}, prefer("q", "a", "b")),
    ("swift_rejected_query",
     {"system": "s", "query": "q", "response": "a", "rejected_response": "b", "history": [["x", "y"]]},
     prefer([("system", "s"), ("user", "x"), ("assistant", "y"), ("user", "q")], "a", "b")),
    ("exchanges", {"id": "7", "turns": [{"user": "q", "assistant": "a"}]}, talk(*QA.messages, id="7")),
    ("exchanges", {"conversations": [{"question": "q", "answer": "a"}]}, QA),
    ("spoken", {"dialogue": [{"speaker": "Customer", "text": "q"}, {"speaker": "Agent", "text": "a", "train": False},
                             {"speaker": "Customer", "text": "q2"}, {"speaker": "Agent", "text": "a2"}]},
     talk(("user", "q"), harness.Message("assistant", "a", train=False), ("user", "q2"), ("assistant", "a2"))),
    ("spoken", {"context": "s", "messages": [{"author": "user", "content": "q"}, {"author": "bot", "content": "a"}]},
     talk(("system", "s"), *QA.messages)),
    ("transcript", {"text": "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n"
                            "<|im_start|>assistant\na<|im_end|>\n"}, talk(("system", "s"), *QA.messages)),
    ("transcript", {"text": "<s>[INST] <<SYS>>\ns\n<</SYS>>\n\nq [/INST] a </s><s>[INST] q2 [/INST] a2 </s>"},
     talk(("system", "s"), *QA.messages, ("user", "q2"), ("assistant", "a2"))),
    ("transcript", {"text": "### Human: q### Assistant: a"}, QA),
    ("transcript", {"conversation": "[USER] q\n[ASSISTANT] a"}, QA),
    ("transcript", {"transcript": "User: q\nmore\nAssistant: a\n\nUser: q2\nAssistant: a2"},
     talk(("user", "q\nmore"), ("assistant", "a"), ("user", "q2"), ("assistant", "a2"))),
    ("ultrachat", {"id": "0", "data": ["q", "a", "q2", "a2"]},
     talk(("user", "q"), ("assistant", "a"), ("user", "q2"), ("assistant", "a2"), id="0")),
    ("segments", {"segments": [{"label": False, "text": "<s>Q: "}, {"label": False, "text": "q\nA:"},
                               {"label": True, "text": " a</s>"}]},
     talk(("user", "<s>Q: q\nA:"), ("assistant", " a</s>"))),
    ("argilla_flat_answers", {"id": "1", "status": "completed", "_server_id": "s", "instruction": "q",
                              "answer.responses": ["a", "no"], "answer.responses.users": ["u", "v"],
                              "answer.responses.status": ["submitted", "discarded"], "answer.suggestion": None},
     talk(*QA.messages, id="1")),
    ("argilla_flat_answers", {"prompt": "q", "answer": [{"user_id": "u", "value": "a", "status": "submitted"}],
                              "answer-suggestion": None, "external_id": None, "metadata": "{}"}, QA),
    ("argilla_flat_rankings", {"id": "1", "status": "completed", "_server_id": "s", "prompt": "q", "response-1": "a",
                               "response-2": "b", "best.responses": [[
                                   {"value": "response-2", "rank": 1}, {"value": "response-1", "rank": 2}]],
                               "best.responses.status": ["submitted"]},
     prefer("q", "b", "a", margin=1.0)),
    ("label_studio_min_answers", {**MINIMAL, "question": "q", "reply": "a"}, QA),
    ("label_studio_min_labels", {**MINIMAL, "text": "I loved it.", "mood": {"choices": ["Positive"]}},
     list(convert_row(flan.DATASET, {"text": "I loved it.", "label": "Positive"}))),
    ("label_studio_min_feedback", {**MINIMAL, "prompt": "q", "answer": "a", "rating": "good"},
     harness.Preference((message(("user", "q")),), (message(("assistant", "a")),), ())),
    ("question_answer", {"user": "q", "assistant": "a"}, QA),
    ("question_answer", {"Question": "q", "Answer": "a"}, QA),
    ("thoughtful", {"question": "q", "thinking": "t", "answer": "a"}, talk(("user", "q"), thought("t", "a"))),
    ("thoughtful", {"prompt": "q", "reasoning": "t", "response": "a"}, talk(("user", "q"), thought("t", "a"))),
    ("judged_pair", {"prompt": "q", "pos": "a", "neg": "b"}, prefer("q", "a", "b")),
    ("judged_pair", {"instruction": "q", "input": "more", "chosen_response": "a", "rejected_response": "b"},
     prefer("q\n\nmore", "a", "b")),
    ("two_answers", {"prompt": "q", "response_a": "a", "response_b": "b", "preference": "B"}, prefer("q", "b", "a")),
    ("two_answers", {"instruction": "q", "output_1": "a", "output_2": "b", "preference": 1}, prefer("q", "a", "b")),
    ("two_answers", {"question": "q", "answer_a": "a", "answer_b": "b", "winner": "tie"}, []),
    ("ranked_answers", {"prompt": "q", "responses": ["b", "a"], "rewards": [0.25, 0.75]},
     prefer("q", "a", "b", margin=0.5)),
    ("ranked_answers", {"question": "q", "candidates": [{"answer": "b", "rating": 1}, {"answer": "a", "rating": 5}]},
     prefer("q", "a", "b", margin=4.0)),
    ("swift_rejected_query", {"instruction": "q", "input": "", "output": "a", "rejected_output": "b"},
     prefer("q", "a", "b")),
]  # fmt: skip
NOT_CONVERTED_ALONE = {"helpsteer2", "prompts", "verl"}  # several rows make one; nothing to train on
# The same columns, and two orders; or an answer and a label, which only people can tell apart.
CHOSEN_BY_NAME = {"pku_helpful", "pku_harmless", "label_studio_min_answers", "label_studio_min_labels"}
NAMED_BY_USERS = {shape.name for shape in SHAPES if any("*" in alternative for alternative in shape.fields)}


def test_every_shape_has_a_row():
    assert {name for name, _, _ in ROWS} | NOT_CONVERTED_ALONE == {shape.name for shape in SHAPES}


@pytest.mark.parametrize(("name", "row", "wanted"), ROWS, ids=[name for name, _, _ in ROWS])
def test_row_becomes(name, row, wanted, datasets):
    wanted = wanted if isinstance(wanted, list) else [wanted]
    assert [item for item in convert_row(datasets[name], row) if item] == wanted


@pytest.mark.parametrize(
    ("name", "row"), [(name, row) for name, row, wanted in ROWS if wanted and name not in CHOSEN_BY_NAME]
)
def test_auto_recognises(name, row, datasets, write_rows):
    assert choose(str(write_rows(row, row, row)), datasets).dataset == name


# Nothing is lost


CASES = [(name, row) for name, row, wanted in ROWS if wanted]


@pytest.mark.parametrize(("name", "row"), CASES, ids=[name for name, _ in CASES])
def test_one_more_column_is_refused(name, row, datasets):
    with pytest.raises(harness.DataError, match="remark"):
        convert_row(datasets[name], {**row, "remark": "Mind the step."})


@pytest.mark.parametrize(("name", "row"), CASES, ids=[name for name, _ in CASES])
def test_a_renamed_column_is_refused(name, row, datasets):
    """A row in which any filled column has another name is refused, whether the shape needs that column or not."""
    for column in (column for column, value in row.items() if value not in (None, "", [], {}) and value is not False):
        other = {("renamed " + key if key == column else key): value for key, value in row.items()}
        if name in NAMED_BY_USERS:
            assert keeps_its_texts(datasets[name], row, other), column
            continue
        with pytest.raises(harness.DataError):
            convert_row(datasets[name], other)


def keeps_its_texts(dataset, row, other):
    """True if the other row is refused, or becomes the same."""
    try:
        return text_of(filter(None, convert_row(dataset, other))) == text_of(filter(None, convert_row(dataset, row)))
    except harness.DataError:
        return True


@pytest.mark.parametrize(("name", "row"), CASES, ids=[name for name, _ in CASES])
def test_a_missing_column_is_refused(name, row, datasets):
    for column in needed(name, row):
        with pytest.raises(harness.DataError):
            convert_row(datasets[name], {key: value for key, value in row.items() if key != column})


def needed(name, row):
    """The columns without which no alternative of a shape fits the row."""
    shape = next(shape for shape in SHAPES if shape.name == name)
    dataset = shape.as_dataset(harness.Dataset("any", "any", lambda row, options: None))
    needs = [alternative.needed for alternative in alternatives_of(dataset.fields, dataset.metadata)]
    return [column for column in row if not any(need <= row.keys() - {column} for need in needs)]


def test_one_more_key_of_a_message_is_refused(datasets):
    row = {
        "conversation": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "aside": "Hm."}],
        "model": "m",
    }
    with pytest.raises(harness.DataError, match=r"conversation\.aside"):
        convert_row(datasets["chat_log"], row)


# Several rows, and rows of other files


def test_answers_to_one_prompt_are_ranked(datasets, write_rows):
    """HelpSteer 2: rows of one prompt that follow each other become preferences by their helpfulness."""
    scores = {"correctness": 3, "coherence": 3, "complexity": 1, "verbosity": 1}
    rows = [
        {"prompt": f"q{n}", "response": text, "helpfulness": score, **scores}
        for n in range(3)
        for text, score in (("a", 4), ("b", 2))
    ]
    rows.append({"prompt": "alone", "response": "a", "helpfulness": 1, **scores})
    path = str(write_rows(*rows))
    assert choose(path, datasets).dataset == "helpsteer2"
    items = list(load_source(DataSource(dataset="auto", path=path), datasets))
    assert [(item.prompt[0].content, item.chosen[0].content, item.margin) for item in items] == [
        (f"q{n}", "a", 2.0) for n in range(3)
    ]


VERL = {
    "data_source": "gsm", "prompt": ASKED, "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "1"}, "extra_info": {"index": 0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "row"), [("verl", VERL), ("prompts", {"question": "q"}), ("prompts", {"prompt": ASKED})]
)
def test_prompts_alone_are_refused_with_their_uses_and_read_where_prompts_are_asked_for(
    name, row, datasets, write_rows
):
    assert convert_row(datasets[name], row, check=lambda item: None) == (talk(("user", "q")),)
    path = str(write_rows(row))
    with pytest.raises(
        harness.DataError, match=rf"the fields of '{name}'.* nothing to train on.*seeds of `harness generate FILE`"
    ):
        choose(path, datasets)
    assert list(prompts_of(path, datasets)) == ["q"]


def test_the_answers_in_a_prompt_are_not_trained_on(datasets):
    asked = [*ASKED, {"role": "assistant", "content": "a"}, {"role": "user", "content": "q2"}]
    with pytest.raises(harness.DataError, match="no message is trained on"):
        convert_row(datasets["verl"], VERL | {"prompt": asked})


def test_two_orders_of_one_file_are_both_named(datasets, write_rows):
    with pytest.raises(harness.DataError, match="'pku_harmless' and 'pku_helpful' fit equally well"):
        choose(str(write_rows(pku())), datasets)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("messages", {"messages": [*ASKED, {"role": "assistant", "content": "a"}]}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}),
        ("prompt_completion", {"query": "q", "response": "a"}),
        ("prompt_completion", {"question": "q", "answer": "a"}),
        ("alpaca", {"instruction": "q", "input": "", "output": "a"}),
    ],
)
def test_a_shape_does_not_take_the_plain_rows_of_its_dataset(name, row, datasets, write_rows):
    assert choose(str(write_rows(row, row)), datasets).dataset == name


def test_thoughts_of_an_exported_chat_come_before_their_answer(datasets):
    thoughts = {"content_type": "thoughts", "thoughts": [{"summary": "s", "content": "t"}]}
    recap = {"content_type": "reasoning_recap", "content": "Thought for 5 s"}
    mapping = {
        "a": node("user", "q", None, "b"),
        "b": node("assistant", "", "a", "c", content=thoughts),
        "c": node("assistant", "", "b", "d", content=recap),
        "d": node("assistant", "a", "c"),
    }
    wanted = talk(("user", "q"), thought("t", "a"))
    assert convert_row(datasets["chatgpt_export"], {"title": "t", "mapping": mapping}) == (wanted,)


def test_a_picture_in_an_exported_chat_is_refused(datasets):
    picture = {"content_type": "multimodal_text", "parts": [{"asset_pointer": "file://x"}, "What is it?"]}
    mapping = {"a": node("user", "", None, "b", content=picture), "b": node("assistant", "A lamp.", "a")}
    with pytest.raises(harness.DataError, match="holds 'multimodal_text', which is no text"):
        convert_row(datasets["chatgpt_export"], {"title": "t", "mapping": mapping})


def test_a_second_text_of_an_export_is_refused(datasets):
    flat = {"status": "completed", "_server_id": "s", "instruction": "q", "answer": "a field of the same name",
            "answer.responses": ["a"], "answer.responses.status": ["submitted"]}  # fmt: skip
    message = {"author": {"role": "user"}, "content": {"content_type": "text", "parts": ["q"], "content": "more"}}
    mapping = {"a": {"parent": None, "message": message}}
    for name, row in (("argilla_flat_answers", flat), ("chatgpt_export", {"mapping": mapping})):
        with pytest.raises(harness.DataError, match="would be lost"):
            convert_row(datasets[name], row)


def test_a_call_that_cannot_be_read_is_refused(datasets):
    row = dict(next(row for name, row, _ in ROWS if name == "toolace"))
    row["conversations"] = [{"from": "user", "value": "q"}, {"from": "assistant", "value": "[Get Sun(city=Lima)]"}]
    with pytest.raises(harness.DataError, match="turn 2: the calls cannot be read"):
        convert_row(datasets["toolace"], row)


# Extending the table


def test_a_plugin_adds_a_shape_with_a_line(tmp_path, write_rows):
    plugin = tmp_path / "faq.py"
    plugin.write_text(
        "import harness\n\n\n@harness.hookimpl\ndef register_shapes(register):\n"
        '    register(harness.Shape("faq", "help", "prompt_completion", '
        '(("prompt=title", "completion=body", "-author"),)))\n'
    )
    datasets = Plugins([plugin]).datasets
    path = str(write_rows({"title": "q", "body": "a", "author": "x"}))
    assert choose(path, datasets).dataset == "faq" and datasets.owner("faq").name == "faq"
    assert [item.messages for item in load_source(DataSource(dataset="auto", path=path), datasets)] == [QA.messages]


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ('"x", "d", "nothing", (("a",),)', "no dataset is named 'nothing'"),
        ('"x", "d", "messages", ()', "fields should be a tuple of alternatives"),
        ('"x", "d", "messages", (("a",),), rewrite=len', None),
        ('"messages", "d", "messages", (("a",),)', "dataset 'messages' is also registered by"),
    ],
)
def test_a_broken_shape_is_reported(declared, reason, tmp_path, capsys):
    plugin = tmp_path / "wrong.py"
    plugin.write_text(
        "import harness\n\n\n@harness.hookimpl\ndef register_shapes(register):\n"
        f"    register(harness.Shape({declared}))\n"
    )
    assert "messages" in Plugins([plugin]).datasets
    warned = capsys.readouterr().err
    assert warned == "" if reason is None else reason in warned
