package schedule

import (
	"encoding/json"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/internal/errs"
)

// The classes, by diffusers' names.
const (
	PNDM           = "PNDMScheduler"
	DDIM           = "DDIMScheduler"
	Euler          = "EulerDiscreteScheduler"
	EulerAncestral = "EulerAncestralDiscreteScheduler"
	DPMSolver      = "DPMSolverMultistepScheduler"
	LCM            = "LCMScheduler"
)

// names are what requests call the classes.
var names = map[string]string{
	"pndm": PNDM, "ddim": DDIM, "euler": Euler, "euler_ancestral": EulerAncestral, "dpmpp_2m": DPMSolver, "lcm": LCM,
}

// Names lists the schedulers' short names, sorted.
func Names() []string { return slices.Sorted(maps.Keys(names)) }

// The kinds of prediction: what the network's output is.
const (
	Epsilon  = "epsilon"      // the noise
	Original = "sample"       // the picture without noise
	Velocity = "v_prediction" // Salimans and Ho 2022
)

// Config is what a scheduler_config.json says, with the class's defaults for what it leaves out.
// Fields are named as there.
type Config struct {
	Class             string    `json:"_class_name"`
	NumTrainTimesteps int       `json:"num_train_timesteps"`
	BetaStart         float64   `json:"beta_start"`
	BetaEnd           float64   `json:"beta_end"`
	BetaSchedule      string    `json:"beta_schedule"` // linear, scaled_linear, squaredcos_cap_v2
	TrainedBetas      []float64 `json:"trained_betas"` // in place of the three above
	RescaleZeroSNR    bool      `json:"rescale_betas_zero_snr"`
	PredictionType    string    `json:"prediction_type"`
	TimestepSpacing   string    `json:"timestep_spacing"` // linspace, leading, trailing
	StepsOffset       int       `json:"steps_offset"`     // added to leading timesteps

	// PNDM, DDIM, LCM
	SkipPRKSteps  bool `json:"skip_prk_steps"`
	SetAlphaToOne bool `json:"set_alpha_to_one"` // nothing of the noise is left behind the last step

	// DDIM and LCM clip the picture that they predict; these and DPM-Solver threshold it.
	ClipSample               bool    `json:"clip_sample"`
	ClipSampleRange          float64 `json:"clip_sample_range"`
	Thresholding             bool    `json:"thresholding"`
	DynamicThresholdingRatio float64 `json:"dynamic_thresholding_ratio"`
	SampleMaxValue           float64 `json:"sample_max_value"`

	// Euler and DPM-Solver
	UseKarrasSigmas      bool     `json:"use_karras_sigmas"`
	UseExponentialSigmas bool     `json:"use_exponential_sigmas"`
	UseBetaSigmas        bool     `json:"use_beta_sigmas"`
	FinalSigmasType      string   `json:"final_sigmas_type"` // zero, sigma_min
	SigmaMin             *float64 `json:"sigma_min"`
	SigmaMax             *float64 `json:"sigma_max"`
	InterpolationType    string   `json:"interpolation_type"` // linear, log_linear
	TimestepType         string   `json:"timestep_type"`      // discrete, continuous

	// DPM-Solver
	SolverOrder      int     `json:"solver_order"`   // 1, 2, 3
	AlgorithmType    string  `json:"algorithm_type"` // dpmsolver++, dpmsolver, sde-dpmsolver++, sde-dpmsolver
	SolverType       string  `json:"solver_type"`    // midpoint, heun
	LowerOrderFinal  bool    `json:"lower_order_final"`
	EulerAtFinal     bool    `json:"euler_at_final"`
	UseLuLambdas     bool    `json:"use_lu_lambdas"`
	LambdaMinClipped float64 `json:"lambda_min_clipped"`
	VarianceType     string  `json:"variance_type"`
	UseFlowSigmas    bool    `json:"use_flow_sigmas"`
	DynamicShifting  bool    `json:"use_dynamic_shifting"`

	// LCM
	OriginalInferenceSteps int     `json:"original_inference_steps"`
	TimestepScaling        float64 `json:"timestep_scaling"`
}

// defaults are a class's own: those of diffusers 0.42.
func defaults(class string) Config {
	c := Config{
		Class: class, NumTrainTimesteps: 1000, BetaStart: 0.0001, BetaEnd: 0.02, BetaSchedule: "linear",
		PredictionType: Epsilon, TimestepSpacing: "leading", ClipSampleRange: 1,
		DynamicThresholdingRatio: 0.995, SampleMaxValue: 1, FinalSigmasType: "zero",
		InterpolationType: "linear", TimestepType: "discrete", SolverOrder: 2, AlgorithmType: "dpmsolver++",
		SolverType: "midpoint", LowerOrderFinal: true, LambdaMinClipped: math.Inf(-1),
		OriginalInferenceSteps: 50, TimestepScaling: 10,
	}
	switch class {
	case DDIM:
		c.ClipSample, c.SetAlphaToOne = true, true
	case Euler, EulerAncestral, DPMSolver:
		c.TimestepSpacing = "linspace"
	case LCM:
		c.BetaStart, c.BetaEnd, c.BetaSchedule, c.SetAlphaToOne = 0.00085, 0.012, "scaled_linear", true
	}
	return c
}

// infinity is how Python writes a float that JSON has no word for.
var infinity = regexp.MustCompile(`(:\s*)-Infinity\b`)

// idle are fields of diffusers' schedulers that say nothing to any of ours: flow_shift and
// time_shift_type are of flows, which are refused where they are used.
var idle = []string{"flow_shift", "time_shift_type"}

// Parse reads a scheduler_config.json. scheduler names another class than the file's, by its short
// name or diffusers' own, which then reads the file's fields, with its own defaults for the others,
// as diffusers' from_config does; "" keeps the file's. A field that the class doesn't have is left
// alone if another of ours has it, and else refused by name, kind errs.Unsupported, as are values
// that can't be honoured.
func Parse(data []byte, scheduler string) (Config, error) {
	data = infinity.ReplaceAll(data, []byte("${1}-1.7e308"))
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &fields); err != nil {
		return Config{}, errs.New(errs.Invalid, "scheduler_config.json: %w", err)
	}
	var own string
	if err := json.Unmarshal(fields["_class_name"], &own); err != nil && scheduler == "" {
		return Config{}, errs.New(errs.Invalid, "scheduler_config.json: _class_name is missing or no string")
	}
	class, err := classOf(scheduler, own)
	if err != nil {
		return Config{}, err
	}
	if class == own {
		if err := refuseUnknown(fields); err != nil {
			return Config{}, err
		}
	}
	c := defaults(class)
	for name, raw := range fields { // null is Python's None: the default
		if string(raw) == "null" || strings.HasPrefix(name, "_") {
			delete(fields, name)
		}
	}
	if data, err = json.Marshal(fields); err != nil {
		return Config{}, errs.New(errs.Invalid, "scheduler_config.json: %w", err)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return Config{}, errs.New(errs.Invalid, "scheduler_config.json: %w", err)
	}
	c.Class = class
	switch c.SolverType { // those of DEIS and UniPC, which DPM-Solver takes for its own
	case "logrho", "bh1", "bh2":
		c.SolverType = "midpoint"
	}
	if c.AlgorithmType == "deis" {
		c.AlgorithmType = "dpmsolver++"
	}
	return c, c.check()
}

// classOf is the class that a request names, else the file's.
func classOf(scheduler, own string) (string, error) {
	class := own
	if scheduler != "" {
		class = scheduler
	}
	if long, ok := names[class]; ok {
		return long, nil
	}
	for _, long := range names {
		if class == long {
			return long, nil
		}
	}
	return "", errs.New(errs.Unsupported, "scheduler %q is not known; there are %s", class, strings.Join(Names(), ", "))
}

// refuseUnknown refuses fields that could mean something which isn't done.
func refuseUnknown(fields map[string]json.RawMessage) error {
	known := map[string]json.RawMessage{}
	all, err := json.Marshal(defaultsWithoutInfinity())
	if err != nil {
		return err
	}
	if err := json.Unmarshal(all, &known); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := string(fields[name])
		if _, ok := known[name]; ok || strings.HasPrefix(name, "_") || slices.Contains(idle, name) || value == "null" || value == "false" {
			continue
		}
		return errs.New(errs.Unsupported, "scheduler_config.json: %s is %s: no scheduler here has that field", name, value)
	}
	return nil
}

func defaultsWithoutInfinity() Config {
	c := defaults(DDIM)
	c.LambdaMinClipped = 0
	return c
}

// check refuses values out of range and what isn't done.
func (c *Config) check() error {
	has := func(classes ...string) bool { return slices.Contains(classes, c.Class) }
	sigmas := has(Euler, DPMSolver)
	for _, f := range []struct {
		field   string
		value   string
		applies bool
		allowed []string
	}{
		{"beta_schedule", c.BetaSchedule, c.TrainedBetas == nil, []string{"linear", "scaled_linear", "squaredcos_cap_v2"}},
		{"prediction_type", c.PredictionType, has(PNDM, EulerAncestral), []string{Epsilon, Velocity}},
		{"prediction_type", c.PredictionType, true, []string{Epsilon, Original, Velocity}},
		{"timestep_spacing", c.TimestepSpacing, !has(LCM), []string{"linspace", "leading", "trailing"}},
		{"final_sigmas_type", c.FinalSigmasType, sigmas, []string{"zero", "sigma_min"}},
		{"interpolation_type", c.InterpolationType, has(Euler), []string{"linear", "log_linear"}},
		{"timestep_type", c.TimestepType, has(Euler), []string{"discrete", "continuous"}},
		{"algorithm_type", c.AlgorithmType, has(DPMSolver), []string{"dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"}},
		{"solver_type", c.SolverType, has(DPMSolver), []string{"midpoint", "heun"}},
		{"variance_type", c.VarianceType, has(DPMSolver), []string{"", "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"}},
	} {
		if f.applies && !slices.Contains(f.allowed, f.value) {
			return errs.New(errs.Unsupported, "scheduler_config.json: %s is %q; %s takes %s", f.field, f.value, c.Class, strings.Join(f.allowed, ", "))
		}
	}
	for _, f := range []struct {
		field   string
		set     bool
		applies bool
	}{
		{"rescale_betas_zero_snr", c.RescaleZeroSNR, has(PNDM)},
		{"use_flow_sigmas", c.UseFlowSigmas, has(DPMSolver)},
		{"use_dynamic_shifting", c.DynamicShifting, has(DPMSolver)},
	} {
		if f.set && f.applies {
			return errs.New(errs.Unsupported, "scheduler_config.json: %s is true: %s does not do that here", f.field, c.Class)
		}
	}
	return c.checkNumbers()
}

// maxTrainTimesteps bounds the tables that a file can ask for.
const maxTrainTimesteps = 100_000

func (c *Config) checkNumbers() error {
	for _, f := range []struct {
		field   string
		ok      bool
		value   any
		allowed string
	}{
		{"num_train_timesteps", c.NumTrainTimesteps >= 2 && c.NumTrainTimesteps <= maxTrainTimesteps, c.NumTrainTimesteps, "2 to 100000"},
		{"beta_start", c.BetaStart > 0 && c.BetaStart < 1, c.BetaStart, "between 0 and 1"},
		{"beta_end", c.BetaEnd > 0 && c.BetaEnd < 1, c.BetaEnd, "between 0 and 1"},
		{"number of trained_betas", c.TrainedBetas == nil || len(c.TrainedBetas) == c.NumTrainTimesteps, len(c.TrainedBetas), "num_train_timesteps"},
		{"trained_betas", !slices.ContainsFunc(c.TrainedBetas, func(b float64) bool { return !(b > 0 && b < 1) }), "out of range", "between 0 and 1"},
		{"steps_offset", c.StepsOffset >= 0 && c.StepsOffset < c.NumTrainTimesteps, c.StepsOffset, "0 to num_train_timesteps - 1"},
		{"clip_sample_range", c.ClipSampleRange > 0, c.ClipSampleRange, "above 0"},
		{"dynamic_thresholding_ratio", c.DynamicThresholdingRatio >= 0 && c.DynamicThresholdingRatio <= 1, c.DynamicThresholdingRatio, "0 to 1"},
		{"sample_max_value", c.SampleMaxValue >= 1, c.SampleMaxValue, "1 or more"},
		{"sigma_min", c.SigmaMin == nil || *c.SigmaMin > 0, c.SigmaMin, "above 0"},
		{"sigma_max", c.SigmaMax == nil || *c.SigmaMax > 0, c.SigmaMax, "above 0"},
		{"solver_order", c.SolverOrder >= 1 && c.SolverOrder <= 3, c.SolverOrder, "1, 2, 3"},
		{"original_inference_steps", c.OriginalInferenceSteps >= 1 && (c.Class != LCM || c.OriginalInferenceSteps <= c.NumTrainTimesteps), c.OriginalInferenceSteps, "1 to num_train_timesteps"},
		{"timestep_scaling", c.TimestepScaling > 0, c.TimestepScaling, "above 0"},
	} {
		if !f.ok {
			return errs.New(errs.Invalid, "scheduler_config.json: %s is %v; it is %s", f.field, f.value, f.allowed)
		}
	}
	if c.UseKarrasSigmas && c.UseExponentialSigmas || c.UseKarrasSigmas && c.UseBetaSigmas || c.UseExponentialSigmas && c.UseBetaSigmas {
		return errs.New(errs.Invalid, "scheduler_config.json: two of use_karras_sigmas, use_exponential_sigmas and use_beta_sigmas are true; one can be")
	}
	return c.checkSolver()
}

// checkSolver refuses combinations that DPM-Solver has no formula for.
func (c *Config) checkSolver() error {
	if c.Class != DPMSolver {
		return nil
	}
	if !strings.HasSuffix(c.AlgorithmType, "++") && c.FinalSigmasType == "zero" {
		return errs.New(errs.Unsupported, "scheduler_config.json: algorithm_type %s can't end in no noise: set final_sigmas_type to sigma_min", c.AlgorithmType)
	}
	if c.AlgorithmType == "sde-dpmsolver" && c.SolverOrder == 3 {
		return errs.New(errs.Unsupported, "scheduler_config.json: algorithm_type sde-dpmsolver has no solver_order 3")
	}
	return nil
}

// ShortName is what requests call a class.
func ShortName(class string) string {
	for short, long := range names {
		if long == class {
			return short
		}
	}
	return class
}
