"""Many encoded conversations, in memory or in a file that is mapped into it, and read one at a time."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple, overload

from harness.data.encode.workers import Encoded
from harness.extras import require
from harness.nouns import Example

BLOCK_ROWS = 4096
BLOCK_TOKENS = 1 << 22


class Block(NamedTuple):
    """Some conversations one after the other; the i-th has the tokens edges[i] to edges[i + 1]."""

    ids: memoryview[int]  # of int32
    mask: memoryview[bool]
    edges: memoryview[int]  # of int32
    names: Sequence[Any]
    times: memoryview[int]  # of int32, how often each is used


class Examples(Sequence[Example]):
    """A sequence of examples that holds no Python object for any of them. One that is used n times is there n times.

    In memory it takes 5 bytes a token; of a file only what is looked at is read.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self._starts = list(accumulate((len(block.times) for block in blocks), initial=0))
        self._order: array[int] | None = None  # the row that each place has, where rows are used more than once
        if any(times != 1 for block in blocks for times in block.times):
            repeated = ([row] * times for row, times in enumerate(chain.from_iterable(b.times for b in blocks)))
            self._order = array("Q", chain.from_iterable(repeated))

    @classmethod
    def open(cls, path: Path) -> Examples:
        """The examples in an Arrow file that `ExampleWriter` wrote. Raises Arrow's own errors and ValueError."""
        pyarrow = require("pyarrow", "data")
        file = pyarrow.ipc.open_file(pyarrow.memory_map(str(path)))
        return cls([_block_of(file.get_batch(number)) for number in range(file.num_record_batches)])

    def __len__(self) -> int:
        return self._starts[-1] if self._order is None else len(self._order)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        if self._order is not None:
            row = self._order[row]
        at = bisect_right(self._starts, row) - 1
        block, row = self._blocks[at], row - self._starts[at]
        start, end = block.edges[row], block.edges[row + 1]
        mask: list[Any] = block.mask[start:end].tolist()
        return Example(block.ids[start:end].tolist(), mask, block.names[row])

    def lengths(self) -> array[int]:
        """The number of tokens of each."""
        lengths = array("i", (end - start for block in self._blocks for start, end in pairwise(block.edges)))
        return lengths if self._order is None else array("i", map(lengths.__getitem__, self._order))


class ExampleWriter:
    """Takes examples one by one. With a `path` they go into an Arrow file there, a block at a time, else into memory."""

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._blocks = path, list[Block]()
        self._file: Any = None
        self._clear()

    def add(self, example: Encoded, times: int) -> None:
        """Take an example that is used `times` times."""
        self._ids.extend(example.ids)
        self._mask.extend(example.mask)
        self._edges.append(len(self._ids))
        self._names.append(example.id)
        self._times.append(times)
        if len(self._times) == BLOCK_ROWS or len(self._ids) >= BLOCK_TOKENS:
            self._flush()

    def finish(self) -> Examples:
        """All that was added."""
        self._flush()
        if self._file is None:
            return Examples(self._blocks)
        assert self._path is not None
        self._file.close()
        return Examples.open(self._path)

    def _clear(self) -> None:
        self._ids, self._mask, self._edges = array("i"), bytearray(), array("i", [0])
        self._names, self._times = list[str](), array("i")

    def _flush(self) -> None:
        if not self._times:
            return
        if self._path is None:
            views = memoryview(self._ids), memoryview(self._mask).cast("?"), memoryview(self._edges)
            self._blocks.append(Block(*views, self._names, memoryview(self._times)))
        else:
            batch = _batch_of(self._ids, self._mask, self._edges, self._names, self._times)
            if self._file is None:
                pyarrow = require("pyarrow", "data")
                self._file = pyarrow.ipc.new_file(str(self._path), batch.schema)
            self._file.write_batch(batch)
        self._clear()


def _batch_of(ids: array[int], mask: bytearray, edges: array[int], names: list[str], times: array[int]) -> Any:
    pyarrow = require("pyarrow", "data")
    rows, buffer = len(times), pyarrow.py_buffer
    tokens = pyarrow.Array.from_buffers(pyarrow.int32(), len(ids), [None, buffer(ids)])
    columns = {
        "id": pyarrow.array(names, pyarrow.string()),
        "input_ids": pyarrow.ListArray.from_arrays(
            pyarrow.Array.from_buffers(pyarrow.int32(), rows + 1, [None, buffer(edges)]), tokens
        ),
        "loss_mask": pyarrow.Array.from_buffers(pyarrow.binary(), rows, [None, buffer(edges), buffer(mask)]),
        "times": pyarrow.Array.from_buffers(pyarrow.int32(), rows, [None, buffer(times)]),
    }
    return pyarrow.RecordBatch.from_pydict(columns)


def _block_of(batch: Any) -> Block:
    _, edges, _, ids = (memoryview(part) if part else None for part in batch.column("input_ids").buffers())
    mask = memoryview(batch.column("loss_mask").buffers()[2])
    times = memoryview(batch.column("times").buffers()[1])
    rows = batch.num_rows
    assert ids is not None and edges is not None
    inside = edges.cast("i")[: rows + 1]
    return Block(
        ids.cast("i"), mask.cast("?"), inside, _Names(batch.column("id")), times[: 4 * rows].cast("i")
    )  # fmt: skip


class _Names(Sequence[str]):
    """A column of text, of which one is made when it is asked for."""

    def __init__(self, column: Any) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: Any) -> Any:
        return self._column[index].as_py()
