"""Loads decoded GGUF models in llama.cpp and evaluates tokens, beside the models that they were made from: `make llama`.

    llama.py QINSCONV
"""
import os
import subprocess
import sys
import tempfile

import numpy as np
from gguf import GGMLQuantizationType as Type, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize
from llama_cpp import Llama

VOCAB, HIDDEN, INNER, KV, LAYERS, HEAD = 512, 256, 768, 64, 3, 32
FILES = dict(F32=LlamaFileType.ALL_F32, F16=LlamaFileType.MOSTLY_F16, BF16=LlamaFileType.MOSTLY_BF16, mixed=LlamaFileType.MOSTLY_Q8_0)


def write(path, kind):
    """A Llama with weights and words by chance. In a mixed one some matrices are quantized already."""
    rng = np.random.default_rng(6)
    w = GGUFWriter(path, "llama")
    w.add_name("a Llama of chance")
    w.add_file_type(FILES[kind])
    w.add_block_count(LAYERS)
    w.add_context_length(256)
    w.add_embedding_length(HIDDEN)
    w.add_feed_forward_length(INNER)
    w.add_head_count(HIDDEN // HEAD)
    w.add_head_count_kv(KV // HEAD)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(HEAD)
    w.add_vocab_size(VOCAB)
    w.add_tokenizer_model("llama")
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * 256
    w.add_token_list(tokens + [f"▁w{i}" for i in range(len(tokens), VOCAB)])
    w.add_token_scores([-float(i) for i in range(VOCAB)])
    w.add_token_types(types + [TokenType.NORMAL] * (VOCAB - len(tokens)))
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)

    def matrix(name, rows, columns):
        values = rng.normal(0, columns ** -0.5, (rows, columns)).astype("f4")
        dtype = Type.Q8_0 if kind == "mixed" and "ffn_down" in name else Type["F16" if kind == "mixed" else kind]
        w.add_tensor(name + ".weight", quantize(values, dtype), raw_dtype=dtype)

    matrix("token_embd", VOCAB, HIDDEN)
    for i in range(LAYERS):
        for name, rows, columns in (("attn_q", HIDDEN, HIDDEN), ("attn_k", KV, HIDDEN), ("attn_v", KV, HIDDEN), ("attn_output", HIDDEN, HIDDEN),
                                    ("ffn_gate", INNER, HIDDEN), ("ffn_up", INNER, HIDDEN), ("ffn_down", HIDDEN, INNER)):
            matrix(f"blk.{i}.{name}", rows, columns)
        for name in ("attn_norm", "ffn_norm"):
            w.add_tensor(f"blk.{i}.{name}.weight", np.ones(HIDDEN, "f4"))
    w.add_tensor("output_norm.weight", np.ones(HIDDEN, "f4"))
    matrix("output", VOCAB, HIDDEN)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def logits(path):
    """What llama.cpp says of a model: its metadata, the tokens of a text and the logits after each."""
    model = Llama(path, n_ctx=64, n_threads=2, logits_all=True, use_mmap=True, verbose=False)
    tokens = model.tokenize("w300 w301 some text, ä".encode())
    model.eval(tokens)
    scores = np.array(model.scores[:len(tokens)], np.float64)
    return dict(model.metadata), tokens, scores


def main():
    command, failed = os.path.abspath(sys.argv[1]), 0
    with tempfile.TemporaryDirectory(prefix="llama-") as folder:
        source, out, back = (os.path.join(folder, name) for name in ("source.gguf", "out.qins", "back.gguf"))
        for kind in FILES:
            write(source, kind)
            subprocess.run([command, "--force", "--quiet", source, out], check=True)
            subprocess.run([command, "decode", "--force", "--quiet", out, back], check=True)
            (meta, tokens, before), (meta2, tokens2, after) = logits(source), logits(back)
            cosine = float(np.min(np.sum(before * after, 1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)))
            ok = (meta, tokens) == (meta2, tokens2) and len(tokens) > 5 and np.isfinite(after).all() and 0.99 < cosine < 1
            failed += not ok
            print(f"{'ok' if ok else 'FAILED'}: {kind}: {os.path.getsize(source):,} bytes, .qins {os.path.getsize(out):,}; "
                  f"{len(tokens)} tokens, least cosine of logits {cosine:.6f}, largest difference {np.max(np.abs(before - after)):.3f} of {np.max(np.abs(before)):.3f}", flush=True)
    print(f"{len(FILES) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
