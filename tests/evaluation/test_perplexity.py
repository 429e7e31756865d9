"""Perplexity: lm-eval's rolling figure, windows that score each token once, and bits a byte across tokenizers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness_evaluation.perplexity import EVALUATION, PerplexityOptions, windows

from harness import HarnessError
from harness.contract import EvaluationContext
from harness.measure.soundness import checked
from harness.model.local import LocalBackend
from harness.plugins import Plugins
from harness.recipe import DataSource
from harness.testing.models import SENTENCES

pytestmark = pytest.mark.slow

TEXT = "\n".join(SENTENCES) * 4


def measured(loaded: Any, **options: Any) -> Any:
    plugins = Plugins()
    assert EVALUATION.run is not None
    outcome = EVALUATION.run(LocalBackend(loaded), PerplexityOptions(**options), EvaluationContext(None, plugins))
    (result,) = checked(outcome, "perplexity", plugins.evaluations.owner("perplexity"))
    return result


@pytest.mark.parametrize("window", [None, 64, 17])
def test_it_is_lm_evals_rolling_figure(
    tiny_model: Path, load: Callable[..., Any], tmp_path: Path, window: int | None
) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    loaded = load(tiny_model)
    (tmp_path / "text.txt").write_text(TEXT)
    result = measured(loaded, text_path=tmp_path / "text.txt", window=window)
    theirs = HFLM(
        pretrained=loaded.model, tokenizer=loaded.template.tokenizer, backend="causal", batch_size=4,
        softmax_dtype="float32", max_length=None if window is None else window - 1,
    )  # fmt: skip
    tokens = len(loaded.template.tokenizer.encode(TEXT, add_special_tokens=False))
    assert tokens > 512
    (log_likelihood,) = theirs.loglikelihood_rolling(
        [Instance("loglikelihood_rolling", {}, (TEXT,), 0)], disable_tqdm=True
    )
    (sample,) = result.samples
    assert sample.log_likelihoods[0] == pytest.approx(log_likelihood, rel=1e-5)
    assert result.scores["nll"].value == pytest.approx(-log_likelihood / tokens, rel=1e-5)
    assert result.scores["perplexity"].value == pytest.approx(math.exp(-log_likelihood / tokens), rel=1e-5)
    bits = -log_likelihood / math.log(2) / len(TEXT.encode())
    assert result.scores["bits_per_byte"].value == pytest.approx(bits, rel=1e-5)
    assert result.details["tokens"] == tokens == sample.weight


@pytest.mark.parametrize("longest", [1, 3, 4, 10, 11])
def test_windows_score_each_token_once_with_lm_evals_context(longest: int) -> None:
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    ids = list(range(100, 110))
    ours = [(list(context), list(scored)) for context, scored in windows(ids, 7, longest)]
    assert [id for _, scored in ours for id in scored] == ids
    theirs = [make_disjoint_window(window) for window in get_rolling_token_windows(ids, 7, longest, 1)]
    assert ours == [(list(context), list(scored)) for context, scored in theirs]


def test_rows_of_a_dataset_weigh_by_tokens_and_by_bytes(
    tiny_model: Path, load: Callable[..., Any], tmp_path: Path
) -> None:
    rows = ["The heron keeps a silver key.", "Où est la clé? Sous le saule, là-bas. " * 3, "x"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    source = DataSource(dataset="text", path=str(tmp_path / "rows.jsonl"))
    result = measured(load(tiny_model), data=(source,))
    sizes = [len(text.encode()) for text in rows]
    assert [sample.weights["bits_per_byte"] for sample in result.samples] == sizes
    total = -sum(sample.log_likelihoods[0] for sample in result.samples)
    assert result.scores["bits_per_byte"].value == pytest.approx(total / math.log(2) / sum(sizes))
    assert result.scores["nll"].value == pytest.approx(total / sum(sample.weight for sample in result.samples))
    assert measured(load(tiny_model), data=(source,), limit=2).scores["nll"].n == 2


def test_options_name_one_kind_of_text_that_is_there(
    tiny_model: Path, load: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="text_path and data exclude each other"):
        PerplexityOptions(text_path=tmp_path / "x.txt", data=(DataSource(dataset="text", path="x.jsonl"),))
    with pytest.raises(HarnessError, match="perplexity has no text: name text_path"):
        measured(load(tiny_model))
    with pytest.raises(HarnessError, match=r"none.txt: cannot be read: No such file"):
        measured(load(tiny_model), text_path=tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(HarnessError, match=r"the text empty.txt is empty"):
        measured(load(tiny_model), text_path=tmp_path / "empty.txt")
