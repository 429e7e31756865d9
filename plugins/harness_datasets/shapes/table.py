"""The table of shapes: the columns of published and exported data, and the dataset that reads them.

A record names its columns as `harness.Shape` describes: `ours=theirs`, `?` after an optional one, `-` before metadata
of the publication. Metadata by which a publication is recognised stand without the `-`: a row must have them. The order
is that of the docs, which are generated from it.
"""

from __future__ import annotations

from harness import Shape
from harness.data import within
from harness_datasets.keys import MARKED, MESSAGE, METADATA
from harness_datasets.shapes import annotated, answers, chats, exports, logs
from harness_datasets.shapes.judged import COMPARISONS

_TOOLS = ("tools?", "tools.*")
_CALLED = ("functionCall.name", "functionCall.args.*", "-functionCall.id")  # Gemini's parts
_ANSWERED = ("functionResponse.name", "functionResponse.response.*", "-functionResponse.id")
_TOOL_CONFIG = (
    *("toolConfig.tools.toolSpec.name", "toolConfig.tools.toolSpec.description", "-toolConfig.toolChoice"),
    "toolConfig.tools.toolSpec.inputSchema.json.*",
)
_BLOCKS = (  # Bedrock's
    *("toolUse.toolUseId", "toolUse.name", "toolUse.input.*", "toolResult.toolUseId", "toolResult.content.text"),
    *("toolResult.content.json.*", "-toolResult.status", "reasoningContent.reasoningText.text"),
    "-reasoningContent.reasoningText.signature",
)
_PROMPT = "prompt|question|query|instruction|problem"
# usual names of a question and its answer, besides those that `prompt_completion` and `alpaca` read
_ASKED = f"{_PROMPT}|input|user|human|text_input|input_text|user_input|Question|Instruction|Prompt|Input|Query|Q|q"
_REPLIED = (
    "response|answer|completion|output|solution|target|assistant|bot|gpt|output_text|text_output|model_output|reply"
    "|expected|expected_output|expected_answer|ideal|reference|reference_answer|ground_truth|gold_answer"
    "|Answer|Response|Completion|Output|Solution|A|a"
)
_THOUGHTS = "thinking|thoughts|think|reasoning_content|reasoning_trace|chain_of_thought|cot"
_SYSTEM = "system|system_prompt|system_message|System?"
_TURNS = "conversation|conversations|turns|dialogue|dialog"
_LOG = ("country", "hashed_ip", "header", "language", "redacted", "state", "timestamp", "toxic", "turn_identifier")
_TASK = (
    *("data.*.role", "data.*.content", *within("annotations", annotated.ANNOTATION), "-id", "-predictions", "-meta"),
    *("-created_at", "-updated_at", "-project", "-inner_id", "-total_annotations", "-cancelled_annotations"),
    *("-total_predictions", "-comment_count", "-unresolved_comment_count", "-last_comment_updated_at"),
    *("-updated_by", "-comment_authors", "-file_upload", "-drafts", "-agreement", "-allow_skip"),
)
_RECORD = (
    *("fields.*.role", "fields.*.content", *within("responses.*", annotated.ANSWER), "id?", "-status", "-_server_id"),
    *("-inserted_at", "-updated_at", "-metadata", "-suggestions", "-vectors", "-external_id"),
)

# fmt: off
CHATS = (
    Shape(
        "gemini", "Gemini's and Vertex's `contents` of role and `parts`", "messages",
        tuple(
            (
                *("contents.role", *within("contents.parts", ("text", *_CALLED, *_ANSWERED))),
                *("contents.parts.thought", "-contents.parts.thoughtSignature"),
                *(f"system={system}?", f"{system}.parts.text", f"-{system}.role"),
                *("tools?", "tools.functionDeclarations.*", "-generationConfig", "-labels"),
            )
            for system in ("systemInstruction", "system_instruction")
        ), rewrite=chats.gemini,
    ),
    Shape(
        "bedrock", "Amazon Bedrock's and Nova's conversations, `content` in blocks", "messages",
        ((
            "messages.role",
            *within("messages.content", ("text", *_BLOCKS)),
            *("system?", "system.text", "toolConfig?", *_TOOL_CONFIG, "-schemaVersion"),
        ),), rewrite=chats.bedrock,
    ),
    Shape(
        "cohere", "Cohere's messages of `System`, `User` and `Chatbot`", "messages",
        ((*within("messages", MESSAGE), *_TOOLS),), rewrite=chats.cohere, rank=-1,
    ),
    Shape(
        "openai_responses", "input and output items of OpenAI's Responses API", "messages",
        ((
            "input", *within("input", chats.ITEM), "output", *within("output", chats.ITEM), "instructions?", *_TOOLS,
            *(f"-{name}" for name in ("id", "object", "model", "created_at", "status", "usage", "metadata", "store")),
        ),), rewrite=chats.responses,
    ),
    Shape(
        "chat_log", "logged chats: LMSYS-Chat-1M, WildChat", "messages",
        ((
            "messages=conversation", *within("conversation", ("role", "content", *(f"-{key}" for key in _LOG))),
        ),),
        metadata=(
            *("conversation_id", "conversation_hash", "model", "turn", "openai_moderation", "detoxify_moderation"),
            *("source", "id", *_LOG),
        ), rewrite=logs.chat_log,
    ),
    Shape(
        "exchanges", "questions with their answers in a list, `input` and `output`, ...: Capybara, xtuner, Firefly",
        "messages",
        tuple(
            (
                *within(column, (asked, answered, "system")), "id?",
                *("-conversation_id", "-category", "-dataset", "-source"),
            )
            for column in (f"conversation={_TURNS}",)
            for asked, answered in logs.EXCHANGES
        ), rewrite=logs.exchanges,
    ),
    Shape(
        "spoken", "turns of `speaker` and `text` and the like in a list", "messages",
        ((
            *within(
                f"conversation=messages|chat|{_TURNS}",
                (*logs.SPEAKER_KEYS, *logs.SAID_KEYS, *MARKED, *METADATA),
            ), f"system={_SYSTEM}", "id?",
        ),
        (*within("conversation=messages", ("author", "content")), "system=context?")), rewrite=logs.spoken,
    ),
    Shape(
        "transcript", "a chat in one text: ChatML, `[INST]`, `### Human:`, `[USER]`, or `User:` at line beginnings",
        "messages",
        ((f"conversation=text|transcript|chat|{_TURNS}", "id?", "-source"),),
        rewrite=logs.transcript, rank=1,
    ),
    Shape(
        "ultrachat", "UltraChat's texts in turn: the user's, the assistant's, ...", "messages",
        (("conversation=data", "id"),), rewrite=logs.in_turns,
    ),
    Shape(
        "segments", "Axolotl's `segments` of text, each with a `label` that says if it is trained on; for `plain`",
        "messages", (("segments", *within("segments", ("label", "text")), "id?"),), rewrite=logs.segments,
    ),
    Shape(
        "hermes", "`conversations` with `<tools>` and `<tool_call>` in their texts, without `category`", "tools",
        ((
            *within("conversations", ("from", "value", *METADATA)), *_TOOLS, "system?", "id?", "-task", "-source",
        ),), rewrite=chats.tagged, rank=1,
    ),
    Shape(
        "swift_tools", "ms-swift's messages with the roles `tool_call` and `tool_response`", "sharegpt",
        ((*within("messages", ("role", "content", *MARKED, *METADATA)), "system?", *_TOOLS, "id?"),),
        rewrite=chats.swift_tools,
    ),
    Shape(
        "xlam", "xLAM and APIGen: `query`, `answers` (calls) and `tools`", "messages",
        (("query", "answers", "answers.*", "tools", "tools.*", "id?"),), rewrite=chats.xlam,
    ),
    Shape(
        "toolace", "ToolACE: tools in the system prompt, calls as `[name(argument=value)]`", "messages",
        (("system", *within("conversations", ("from", "value"))),), rewrite=chats.toolace, rank=1,
    ),
    Shape(
        "prompts", "prompts without an answer: nothing to train on, but seeds of `harness generate FILE` and examples "
        "of `harness serve --examples FILE`", "messages",
        ((f"prompt={_PROMPT}", *within(f"prompt={_PROMPT}", ("role", "content")), _SYSTEM, "id?"),),
        rewrite=logs.prompts, rank=-1,
    ),
    Shape(
        "verl", "verl's prompts and what rewards their answers: nothing to train on, but seeds of "
        "`harness generate FILE` and examples of `harness serve --examples FILE`",
        "messages",
        (("prompt", *within("prompt", ("role", "content")), "reward_model", "reward_model.*", "data_source"),),
        metadata=("ability", "extra_info", "agent_name"), rewrite=logs.prompts,
    ),
)

EXPORTS = (
    Shape(
        "chatgpt_export", "`conversations.json` of ChatGPT's export, each branch a conversation", "messages",
        ((
            *within("mapping.*", exports.CHATGPT_NODE),
            *("id?", "-title", "-create_time", "-update_time", "-current_node"),
        ),),
        metadata=(
            *("conversation_id", "moderation_results", "plugin_ids", "conversation_template_id", "gizmo_id"),
            *("gizmo_type", "is_archived", "is_starred", "safe_urls", "blocked_urls", "default_model_slug"),
            *("conversation_origin", "voice", "async_status", "disabled_tool_ids", "is_do_not_remember"),
            *("memory_scope", "sugar_item_id", "sugar_item_visible", "is_study_mode", "is_read_only", "pinned_time"),
            *("workspace_id", "owner", "context_scopes"),
        ), rewrite=exports.chatgpt,
    ),
    Shape(
        "claude_export", "`conversations.json` of Claude's export, each branch a conversation", "messages",
        ((
            "messages=chat_messages", "id=uuid?", "-name", "-summary", "-created_at", "-updated_at", "-account",
            *within("chat_messages", exports.CLAUDE_MESSAGE),
        ),), rewrite=exports.claude,
    ),
    Shape(
        "langsmith", "LangSmith's examples and runs: `inputs` and `outputs`, messages or one text each", "messages",
        ((*within("inputs.*", exports.LANGSMITH_SIDE), *within("outputs.*", exports.LANGSMITH_SIDE), "id?"),),
        metadata=(
            *("name", "metadata", "created_at", "modified_at", "dataset_id", "source_run_id", "split", "run_type"),
            *("start_time", "end_time", "extra", "trace_id", "session_id", "status", "tags", "feedback_stats"),
        ), rewrite=exports.langsmith,
    ),
    Shape(
        "argilla_answers", "Argilla's records with a question that is answered in writing", "prompt_completion",
        (_RECORD,), rewrite=annotated.argilla_text,
    ),
    Shape(
        "argilla_rankings", "Argilla's records with a question that ranks the record's fields", "instructgpt",
        (_RECORD,), rewrite=annotated.argilla_ranking,
    ),
    Shape(
        "argilla_flat_answers", "Argilla's records, flattened, with a question that is answered in writing",
        "prompt_completion", (("_server_id", "status", "id?", "*"), ("metadata", "id?", "*")),
        rewrite=annotated.argilla_flat_text,
    ),
    Shape(
        "argilla_flat_rankings", "Argilla's records, flattened, with a question that ranks the record's fields",
        "instructgpt", (("_server_id", "status", "id?", "*"), ("metadata", "id?", "*")),
        rewrite=annotated.argilla_flat_ranking,
    ),
    Shape(
        "label_studio_answers", "Label Studio's tasks answered in a text area", "prompt_completion",
        (_TASK,), rewrite=annotated.label_studio_answers,
    ),
    Shape(
        "label_studio_feedback", "Label Studio's tasks of a prompt and an answer, chosen to be good or bad", "feedback",
        (_TASK,), rewrite=annotated.label_studio_feedback,
    ),
    Shape(
        "label_studio_labels", "Label Studio's tasks of one text, with labels chosen for it", "flan",
        (_TASK,), rewrite=annotated.label_studio_labels,
    ),
    Shape(
        "label_studio_pairs", "Label Studio's pairwise choices between two answers", "preferences",
        (_TASK,), rewrite=annotated.label_studio_pairs,
    ),
    Shape(
        "label_studio_min_answers", "Label Studio's JSON_MIN or CSV: what is answered, and the answer in a text area",
        "prompt_completion", (("annotation_id", "lead_time", "*"),),
        rewrite=annotated.minimal_answers,
    ),
    Shape(
        "label_studio_min_labels", "Label Studio's JSON_MIN or CSV: a text, and labels chosen for it",
        "flan", (("annotation_id", "lead_time", "*"),),
        rewrite=annotated.minimal_labels,
    ),
    Shape(
        "label_studio_min_feedback", "Label Studio's JSON_MIN or CSV: a prompt, an answer, and if it is good or bad",
        "feedback", (("annotation_id", "lead_time", "*"),),
        rewrite=annotated.minimal_feedback,
    ),
)

ANSWERS = (
    Shape(
        "question_answer", "a question and its answer under further usual names", "prompt_completion",
        ((f"prompt={_ASKED}", f"completion={_REPLIED}", f"system={_SYSTEM}", "history?", "id?"),), rank=-1,
    ),
    Shape(
        "thoughtful", "a question, thoughts about it, and its answer", "messages",
        ((f"question={_PROMPT}", f"reasoning={_THOUGHTS}", "answer=response|answer|completion|output|solution", "id?"),
         (f"question={_PROMPT}", "reasoning", "answer=response|completion|output", "id?")),
        rewrite=answers.reasoned,
    ),
    Shape(
        "worked", "a question, its worked `solution` and its result", "prompt_completion",
        (("prompt=question|problem", "working=solution|explanation|rationale|reasoning", "result=answer", "id?"),),
        rewrite=answers.worked,
    ),
    Shape(
        "metamath", "MetaMathQA", "prompt_completion",
        (("prompt=query", "completion=response", "type", "original_question"),),
    ),
    Shape(
        "open_math_instruct", "OpenMathInstruct 1 and 2; solutions that the row calls wrong are left out",
        "prompt_completion",
        (
            (
                *("prompt=question", "completion=generated_solution", "is_correct?", "-expected_answer"),
                *("-predicted_answer", "-error_message", "-generation_type", "-dataset", "-subset"),
            ),
            ("prompt=problem", "completion=generated_solution", "-expected_answer", "-problem_source"),
        ), rewrite=answers.if_correct,
    ),
    Shape(
        "magicoder", "Magicoder's OSS-Instruct", "prompt_completion",
        ((
            *("prompt=problem", "completion=solution", "lang", "seed", "-raw_index", "-index"),
            "-openai_fingerprint",
        ),),
    ),
    Shape(
        "s1k", "s1K: reasoning trajectories and the attempt that follows", "messages",
        ((
            *("question", "reasoning=thinking_trajectories", "answer=attempt", "-solution", "-cot_type"),
            *("-source_type", "-metadata", "-cot"),
        ),), rewrite=answers.reasoned,
    ),
    Shape(
        "s1k_1_1", "s1K-1.1: each question with the reasoning and the attempt of two models", "messages",
        ((
            *("question", "gemini_thinking_trajectory", "gemini_attempt", "deepseek_thinking_trajectory"),
            *("deepseek_attempt", "-solution", "-cot_type", "-source_type", "-metadata", "-cot", "-gemini_grade"),
            *("-gemini_grade_reason", "-deepseek_grade", "-deepseek_grade_reason"),
        ),), rewrite=answers.two_teachers,
    ),
    Shape(
        "medical_o1", "medical-o1-reasoning-SFT", "messages",
        (("question=Question", "reasoning=Complex_CoT", "answer=Response"),), rewrite=answers.reasoned,
    ),
    Shape("firefly", "Firefly", "prompt_completion", (("prompt=input", "completion=target", "kind"),)),
)

# fmt: on

SHAPES = (*CHATS, *EXPORTS, *ANSWERS, *COMPARISONS)
