#!/usr/bin/env python3
"""tiny_model.py OUT.gguf: a llama model of random weights, under 1 MB, that llama.cpp loads in a tenth of a second.

The tokenizer is a byte-level BPE trained on the Python standard library's own source, so nothing is fetched.
"""
import glob
import json
import sys
import sysconfig

import gguf
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SPECIALS = ["<|pad|>", "<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{%- if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif -%}"
    "{%- for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{%- if m['content'] is string %}{{ m['content'] }}"
    "{%- else %}{% for c in m['content'] or [] %}{{ c['text'] if c['type'] == 'text' else '' }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif -%}"
)
HIDDEN, LAYERS, HEADS, KV_HEADS, FEED_FORWARD, CONTEXT, VOCAB = 64, 2, 2, 1, 128, 8192, 2048


def tokenizer():
    """A byte-level BPE of 2,048 tokens."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=SPECIALS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tok.train(sorted(glob.glob(sysconfig.get_path("stdlib") + "/*.py"))[:60], trainer)
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    return json.loads(tok.to_str())


def write_vocabulary(writer, tok):
    """Puts the tokenizer into the file; returns the number of tokens."""
    vocab = dict(tok["model"]["vocab"])
    added = {a["id"]: a["content"] for a in tok["added_tokens"]}
    for index, content in added.items():
        vocab.setdefault(content, index)
    names = [""] * (max(vocab.values()) + 1)
    for content, index in vocab.items():
        names[index] = content
    merges = [" ".join(m) if isinstance(m, list) else m for m in tok["model"]["merges"]]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(names)
    writer.add_token_types([control if i in added else normal for i in range(len(names))])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(vocab["<|bos|>"])
    writer.add_eos_token_id(vocab["<|eos|>"])
    writer.add_pad_token_id(vocab["<|pad|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    return len(names)


def write_tensors(writer, vocab):
    """Random weights, small enough that the logits stay tame."""
    rng = np.random.default_rng(1)
    head = HIDDEN // HEADS

    def weights(*shape):
        return (rng.standard_normal(shape) * 0.02).astype(np.float16)

    writer.add_tensor("token_embd.weight", weights(vocab, HIDDEN))
    writer.add_tensor("output.weight", weights(vocab, HIDDEN))
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    for layer in range(LAYERS):
        name = f"blk.{layer}."
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{name}{norm}.weight", np.ones(HIDDEN, np.float32))
        writer.add_tensor(f"{name}attn_q.weight", weights(HEADS * head, HIDDEN))
        for part in ("attn_k", "attn_v"):
            writer.add_tensor(f"{name}{part}.weight", weights(KV_HEADS * head, HIDDEN))
        writer.add_tensor(f"{name}attn_output.weight", weights(HIDDEN, HEADS * head))
        for part in ("ffn_gate", "ffn_up"):
            writer.add_tensor(f"{name}{part}.weight", weights(FEED_FORWARD, HIDDEN))
        writer.add_tensor(f"{name}ffn_down.weight", weights(HIDDEN, FEED_FORWARD))


def main(out):
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    tok = tokenizer()
    vocab = write_vocabulary(writer, tok)
    writer.add_vocab_size(vocab)
    write_tensors(writer, vocab)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(sys.argv[1])
