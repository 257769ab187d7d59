"""Writes what transformers makes of a model whose logits follow from the last token alone: whole texts by generate, and the scores that its
processors leave.

Usage: decoding.py OUT.json.gz
"""
import gzip
import json
import sys

import torch
import transformers as t
from transformers.modeling_outputs import CausalLMOutput

WORDS, BOS, PAD, ENDS = 40, 1, 0, [2, 3]


class Table(t.PreTrainedModel, t.GenerationMixin):
    """Looks the logits of the next token up by the last one and the text's length."""
    config_class = t.PreTrainedConfig
    main_input_name = "input_ids"

    def __init__(self, config, table):
        super().__init__(config)
        self.table = torch.nn.Parameter(table, requires_grad=False)
        self.generation_config = t.GenerationConfig()

    def forward(self, input_ids, **_):
        places = torch.arange(input_ids.shape[1]) % self.table.shape[0]
        return CausalLMOutput(logits=self.table[places, input_ids])

    def prepare_inputs_for_generation(self, input_ids, **_):
        return {"input_ids": input_ids}


OPENINGS = [[1], [1, 9], [1, 20, 21, 20, 22]]
GENERATED = [
    {}, {"max_length": 12}, {"max_new_tokens": 4}, {"min_length": 9, "max_length": 12}, {"min_new_tokens": 6, "max_new_tokens": 9},
    {"repetition_penalty": 1.5, "max_new_tokens": 15}, {"repetition_penalty": 0.7, "max_new_tokens": 15}, {"no_repeat_ngram_size": 1, "max_new_tokens": 15}, {"no_repeat_ngram_size": 2, "max_new_tokens": 15},
    {"forced_bos_token_id": 17}, {"forced_eos_token_id": 3, "max_new_tokens": 6}, {"forced_eos_token_id": [2, 3], "max_new_tokens": 5},
    {"bad_words_ids": [[4], [5, 6], [2], [7, 8, 9]], "max_new_tokens": 15}, {"sequence_bias": [[[5], -4.0], [[20, 21], 9.5], [[7], 2.25]], "max_new_tokens": 15},
    {"suppress_tokens": [4, 5, 6, 7, 8]}, {"begin_suppress_tokens": [3, 10, 11, 12, 13, 14, 15, 16]}, {"begin_suppress_tokens": [10, 11, 12, 13, 14, 15, 16], "forced_bos_token_id": 17},
    {"exponential_decay_length_penalty": [2, 1.6], "max_new_tokens": 15}, {"remove_invalid_values": True, "renormalize_logits": True}, {"eos_token_id": []},
    {"num_beams": 2}, {"num_beams": 4}, {"num_beams": 7, "max_new_tokens": 15}, {"num_beams": 4, "length_penalty": 0.0}, {"num_beams": 4, "length_penalty": 2.0, "max_new_tokens": 12},
    {"num_beams": 4, "length_penalty": -1.0}, {"num_beams": 4, "early_stopping": True}, {"num_beams": 4, "early_stopping": "never"}, {"num_beams": 4, "early_stopping": "never", "length_penalty": 2.0},
    {"num_beams": 4, "early_stopping": True, "length_penalty": 3.0, "min_new_tokens": 3}, {"num_beams": 3, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3, "max_new_tokens": 15},
    {"num_beams": 4, "forced_bos_token_id": 17, "forced_eos_token_id": 2, "max_new_tokens": 7}, {"num_beams": 4, "renormalize_logits": True, "bad_words_ids": [[4], [5, 6]]},
    {"num_beams": 4, "exponential_decay_length_penalty": [1, 1.3], "max_new_tokens": 15}, {"num_beams": 4, "eos_token_id": 2, "max_new_tokens": 15}, {"num_beams": 5, "max_length": 7},
    {"num_beams": 4, "sequence_bias": [[[2], -2.5], [[20, 21], 5.0]]},
]
SCORED = [
    {"temperature": 0.6, "top_k": 0}, {"temperature": 1.7, "top_k": 5}, {"top_k": 50}, {"top_k": 12, "top_p": 0.8}, {"top_k": 0, "top_p": 0.5}, {"top_k": 0, "top_p": 0.01}, {"top_k": 0, "min_p": 0.2},
    {"top_k": 0, "typical_p": 0.7}, {"top_k": 0, "typical_p": 0.1}, {"top_k": 0, "epsilon_cutoff": 0.02}, {"top_k": 0, "eta_cutoff": 0.3}, {"top_k": 9, "top_p": 0.9, "min_p": 0.05, "typical_p": 0.9, "temperature": 1.3, "renormalize_logits": True},
    {"top_k": 0, "top_p": 0.2, "num_beams": 3}, {"top_k": 2, "num_beams": 3}, {"top_k": 0, "epsilon_cutoff": 0.5, "num_beams": 3}, {"top_k": 0, "min_p": 0.9, "num_beams": 3},
    {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "min_length": 20, "bad_words_ids": [[8], [20, 22]], "suppress_tokens": [5], "temperature": 0.8, "top_k": 11, "top_p": 0.85},
]


def main(out):
    torch.manual_seed(3)
    table = torch.randn(5, WORDS, WORDS) * 2
    table[:, :, 2:4] += 1.2
    table = torch.round(table * 65536) / 65536
    model = Table(t.PreTrainedConfig(is_decoder=True, vocab_size=WORDS), table)
    generated = []
    for given in GENERATED:
        texts = []
        for opening in OPENINGS:
            config = dict(bos_token_id=BOS, eos_token_id=ENDS, pad_token_id=PAD, **{"use_cache": False, **given}) if "eos_token_id" not in given else dict(bos_token_id=BOS, pad_token_id=PAD, use_cache=False, **{k: v for k, v in given.items() if v != []})
            ids = model.generate(torch.tensor([opening]), **config)[0].tolist()
            texts.append(ids[len(opening):])
        generated.append({"config": given, "ids": texts})
    scored = []
    for given in SCORED:
        config, _ = model._prepare_generation_config(None, do_sample=True, eos_token_id=ENDS, pad_token_id=PAD, **given)
        model._prepare_special_tokens(config, device="cpu")
        for opening in OPENINGS:
            ids, logits = torch.tensor([opening]), table[0, opening[-1]][None].clone()
            left = model._get_logits_processor(config, input_ids_seq_length=len(opening), device="cpu")(ids, logits)[0]
            scored.append({"config": given, "opening": opening, "scores": [None if x == float("-inf") else round(x, 6) for x in left.tolist()]})
    with gzip.GzipFile(out, "wb", mtime=0) as f:
        f.write(json.dumps({"table": [[[round(x, 6) for x in row] for row in m] for m in table.tolist()], "openings": OPENINGS, "generated": generated, "scored": scored}, separators=(",", ":")).encode())
    print(sum(len({tuple(x) for x in g["ids"]}) for g in generated), "different texts")


if __name__ == "__main__":
    main(sys.argv[1])
