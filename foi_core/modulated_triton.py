"""The modulated cross-attention as one Triton kernel; `foi_core.modulated.reference` says what it computes.

Importing this module needs `triton`. The first call for a new head size, token count, dtype or layout of the operands
compiles: make it before a CUDA graph is captured.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# What `triton.jit` compiles is Triton's language, whose types are not Python's.

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from foi_core.modulated import empty_output

BLOCK_QUERIES = 32
"""Cells of a picture that one program works on: both their tiles of scores stay in registers, for 77 tokens, too."""

CHUNK = 32
"""Dimensions of a head that are in shared memory at a time: K, K_null and V never are there whole, and a head of 160 is
not padded to 256. `tl.dot` wants 16 at least."""


def fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    null_query: Tensor,
    null_key: Tensor,
    cover: Tensor,
    owner: Tensor,
    gain: Tensor,
) -> Tensor:
    """As `foi_core.modulated.modulated_attention`; float16, bfloat16 or float32.

    A block of queries sees all tokens at once, in registers: made for texts of up to 256 tokens (77 with CLIP).
    """
    rows, heads, queries, d = query.shape
    out = empty_output(query)
    block_tokens = max(16, triton.next_power_of_2(key.shape[2]))
    tensors = (out, query, key, value, null_query, null_key, cover, owner, gain)
    grid = (triton.cdiv(queries, BLOCK_QUERIES), heads, rows)
    with torch.cuda.device_of(query):  # Triton launches on the current device, not on its operands'
        _modulated_attention[grid](
            *tensors,
            *(tensor.stride() for tensor in tensors),
            queries,
            1 / math.sqrt(d),
            TOKENS=key.shape[2],
            D=d,
            BLOCK_QUERIES=BLOCK_QUERIES,
            BLOCK_TOKENS=block_tokens,
            CHUNK=CHUNK,
            num_warps=max(4, block_tokens // 32),  # two tiles of scores in float32 have to fit into the registers
        )
    return out


@triton.jit
def _modulated_attention(
    out,
    query,
    key,
    value,
    null_query,
    null_key,
    cover,
    owner,
    gain,
    out_strides,
    query_strides,
    key_strides,
    value_strides,
    null_query_strides,
    null_key_strides,
    cover_strides,
    owner_strides,
    gain_strides,
    queries,
    scale,
    TOKENS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """One block of queries of one head of one row."""
    cells = tl.program_id(0) * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    tokens = tl.arange(0, BLOCK_TOKENS)
    head = tl.program_id(1)
    row = tl.program_id(2).to(tl.int64)  # a batch's rows may lie further apart than 2^31 elements
    inside, real = cells < queries, tokens < TOKENS

    cover += row * cover_strides[0] + cells * cover_strides[1]
    owner += row * owner_strides[0] + tokens * owner_strides[1]
    gain += row * gain_strides[0] + tokens * gain_strides[1]
    regions = tl.load(cover, mask=inside, other=0)[:, None]
    own = (regions & tl.load(owner, mask=real, other=0)[None, :]) != 0
    null = (regions != 0) & (own == 0)

    query += row * query_strides[0] + head * query_strides[1]
    key += row * key_strides[0] + head * key_strides[1]
    X = _scores(query, key, query_strides, key_strides, cells, tokens, inside, real, scale, D, CHUNK)
    top = tl.max(tl.where(real[None, :], X, float("-inf")), axis=1)[:, None]  # padding's zeros are no scores
    X += tl.where(own, tl.load(gain, mask=real, other=0.0)[None, :] * (top - X), 0.0)

    null_query += row * null_query_strides[0] + head * null_query_strides[1]
    null_key += row * null_key_strides[0] + head * null_key_strides[1]
    Y = _scores(
        null_query, null_key, null_query_strides, null_key_strides, cells, tokens, inside, real, scale, D, CHUNK
    )
    L = tl.where(real[None, :], tl.where(null, Y, X), float("-inf"))
    shares = tl.exp(L - tl.max(L, axis=1)[:, None])
    total = tl.sum(shares, axis=1)[:, None]

    value += row * value_strides[0] + head * value_strides[1]
    out += row * out_strides[0] + head * out_strides[1]
    shares = shares.to(value.dtype.element_ty)  # tensor cores take no mixed operands; in [0, 1] half precision is safe
    for start in range(0, D, CHUNK):
        dims = start + tl.arange(0, CHUNK)
        V = tl.load(
            value + tokens[:, None] * value_strides[2] + dims[None, :],
            mask=real[:, None] & (dims < D)[None, :],
            other=0.0,
        )
        mean = tl.dot(shares, V, input_precision="ieee") / total
        tl.store(
            out + cells[:, None] * out_strides[2] + dims[None, :],
            mean.to(out.dtype.element_ty),
            mask=inside[:, None] & (dims < D)[None, :],
        )


@triton.jit
def _scores(
    query,
    key,
    query_strides,
    key_strides,
    cells,
    tokens,
    inside,
    real,
    scale,
    D: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Q K^T / sqrt(d), (block of queries, block of tokens), summed and scaled in float32."""
    scores = tl.zeros((cells.shape[0], tokens.shape[0]), tl.float32)
    for start in range(0, D, CHUNK):
        dims = start + tl.arange(0, CHUNK)
        Q = tl.load(
            query + cells[:, None] * query_strides[2] + dims[None, :],
            mask=inside[:, None] & (dims < D)[None, :],
            other=0.0,
        )
        K = tl.load(
            key + tokens[None, :] * key_strides[2] + dims[:, None],
            mask=real[None, :] & (dims < D)[:, None],
            other=0.0,
        )
        scores = tl.dot(Q, K, scores, input_precision="ieee")  # TF32, the default for float32, has ten bits
    return scores * scale
