package decode

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// Config is a generation_config.json.
type Config struct {
	Options Options
	Start   *int64 // decoder_start_token_id
	BOS     *int64 // bos_token_id
	Pad     *int64 // pad_token_id
	// Ignored are the keys that are there and change no text: about caches and devices, about what else transformers
	// returns, about models that help, and what concerns an encoder's token ids.
	Ignored []string
}

// ReadModelConfig makes of a config.json what transformers makes of it where there is no generation_config.json:
// the keys that one has, and those of the decoder's own part that the whole lacks.
func ReadModelConfig(data []byte) (*Config, error) {
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		return nil, errs.New(errs.Invalid, "config.json: %w", err)
	}
	parts := []map[string]json.RawMessage{whole}
	for _, name := range []string{"decoder", "text_config"} {
		var part map[string]json.RawMessage
		if err := json.Unmarshal(whole[name], &part); err == nil {
			parts = append(parts, part)
		}
	}
	known := (&Config{}).targets()
	given := map[string]json.RawMessage{}
	for _, part := range parts {
		for key, value := range part {
			_, honoured := known[key]
			_, refused := refused[key]
			if _, earlier := given[key]; (honoured || refused) && !earlier && string(value) != "null" {
				given[key] = value
			}
		}
	}
	all, err := json.Marshal(given)
	if err != nil {
		return nil, err
	}
	return ReadConfig(all)
}

// ReadConfig reads a generation_config.json. A key that says something that can't be done is refused by name, kind
// [errs.Unsupported], and so is one that is not known; a value that can't be is [errs.Invalid].
func ReadConfig(data []byte) (*Config, error) {
	var given map[string]json.RawMessage
	if err := json.Unmarshal(data, &given); err != nil {
		return nil, errs.New(errs.Invalid, "generation_config.json: %w", err)
	}
	c := &Config{Options: Defaults()}
	targets := c.targets()
	for _, key := range slices.Sorted(maps.Keys(given)) {
		value := given[key]
		if string(value) == "null" {
			continue
		}
		if err := c.read(targets, key, value); err != nil {
			return nil, err
		}
	}
	if err := c.Options.Check(); err != nil {
		return nil, errs.New(errs.Of(err), "generation_config.json: %w", err)
	}
	return c, nil
}

func (c *Config) read(targets map[string]any, key string, value json.RawMessage) error {
	if neutral, known := refused[key]; known {
		if !slices.Contains(neutral, string(value)) {
			return errs.New(errs.Unsupported, "generation_config.json: %s %.80s is not supported: take it out", key, value)
		}
		return nil
	}
	if slices.Contains(ignored, key) {
		c.Ignored = append(c.Ignored, key)
		return nil
	}
	target, known := targets[key]
	if !known {
		return errs.New(errs.Unsupported, "generation_config.json: the key %q is not known, so what it changes isn't either: take it out if it is of no account", key)
	}
	if err := json.Unmarshal(value, target); err != nil {
		return errs.New(errs.Invalid, "generation_config.json: %s is %.80s: %w", key, value, err)
	}
	return nil
}

// targets say where each key's value goes.
func (c *Config) targets() map[string]any {
	o := &c.Options
	return map[string]any{
		"max_length": &o.MaxLength, "max_new_tokens": &o.MaxNewTokens, "min_length": &o.MinLength, "min_new_tokens": &o.MinNewTokens,
		"early_stopping": &o.Early, "stop_strings": (*list[string])(&o.Stop),
		"do_sample": &o.Sample, "num_beams": &o.Beams, "use_cache": (*negated)(&o.NoCache),
		"temperature": &o.Temperature, "top_k": &o.TopK, "top_p": &o.TopP, "min_p": &o.MinP, "typical_p": &o.TypicalP,
		"epsilon_cutoff": &o.EpsilonCut, "eta_cutoff": &o.EtaCut,
		"repetition_penalty": &o.RepetitionPenalty, "length_penalty": &o.LengthPenalty, "no_repeat_ngram_size": &o.NoRepeatNgram,
		"bad_words_ids": &o.BadWords, "sequence_bias": &o.Biases, "renormalize_logits": &o.Renormalize,
		"forced_bos_token_id": &o.ForcedFirst, "forced_eos_token_id": (*list[int64])(&o.ForcedEnds),
		"remove_invalid_values": &o.RemoveInvalid, "exponential_decay_length_penalty": &o.Decay,
		"suppress_tokens": &o.Suppressed, "begin_suppress_tokens": &o.SuppressedAtFirst,
		"pad_token_id": &c.Pad, "bos_token_id": &c.BOS, "eos_token_id": (*list[int64])(&o.Ends), "decoder_start_token_id": &c.Start,
	}
}

// refused are the keys for what can't be done, and their values that ask for nothing.
var refused = map[string][]string{
	"max_time": nil, "top_h": nil, "guidance_scale": {"1", "1.0"}, "watermarking_config": nil, "token_healing": {"false"},
	"num_return_sequences": {"1"}, "num_beam_groups": {"1"}, "diversity_penalty": {"0", "0.0"}, "penalty_alpha": {"0", "0.0"},
	"dola_layers": nil, "constraints": nil, "force_words_ids": nil, "low_memory": {"false"}, "use_mtp": {"false"}, "is_assistant": {"false"},
}

// ignored are the keys that change no text.
var ignored = []string{
	"cache_implementation", "cache_config", "max_cache_len", "compile_config", "disable_compile", "continuous_batching_config", "prefill_chunk_size",
	"output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate",
	"encoder_repetition_penalty", "encoder_no_repeat_ngram_size",
	"num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold", "prompt_lookup_num_tokens", "max_matching_ngram_size",
	"assistant_early_exit", "assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight", "speculation_type",
	"transformers_version", "_from_model_config", "_commit_hash",
}

// list is a value or several.
type list[T any] []T

// UnmarshalJSON reads a value or a list of them.
func (l *list[T]) UnmarshalJSON(data []byte) error {
	var all []T
	if err := json.Unmarshal(data, &all); err == nil {
		*l = all
		return nil
	}
	var one T
	err := json.Unmarshal(data, &one)
	*l = []T{one}
	return err
}

type negated bool

// UnmarshalJSON reads the opposite.
func (n *negated) UnmarshalJSON(data []byte) error {
	var is bool
	err := json.Unmarshal(data, &is)
	*n = negated(!is)
	return err
}

// UnmarshalJSON reads early_stopping.
func (e *Early) UnmarshalJSON(data []byte) error {
	found, known := map[string]Early{"false": EarlyHeuristic, "true": EarlyFull, `"never"`: EarlyNever}[string(data)]
	if !known {
		return errs.New(errs.Invalid, `it is false, true or "never"`)
	}
	*e = found
	return nil
}

// UnmarshalJSON reads [[id, ...], bias].
func (b *Bias) UnmarshalJSON(data []byte) error {
	return pair(data, &b.Tokens, &b.By)
}

// UnmarshalJSON reads [from, factor].
func (d *Decay) UnmarshalJSON(data []byte) error {
	return pair(data, &d.From, &d.Factor)
}

func pair(data []byte, first, second any) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(data, &parts); err != nil {
		return err
	}
	if len(parts) != 2 {
		return errs.New(errs.Invalid, "%d values where two belong", len(parts))
	}
	return errors.Join(json.Unmarshal(parts[0], first), json.Unmarshal(parts[1], second))
}
