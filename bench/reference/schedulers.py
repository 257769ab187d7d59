"""What diffusers' schedulers make of the same network outputs and noise.

Usage: schedulers.py OUT
Writes OUT/cases.json, a list of configurations with a number of steps and a strength, and OUT/golden.npz: `outs` and `noise`
[60,8], which all cases share (row i at step i), and for case i `i.times`, `i.initial` (the factor on the first noise), `i.scaled`
(what the network is given), `i.x` (the picture ahead of the first step and behind each), and for training `i.alphas`, `i.noised`
and `i.velocity` at timesteps 0, 1, half and last.
"""
import importlib
import json
import pathlib
import sys

import diffusers
import numpy as np
import torch

SHAPE = (1, 2, 2, 2)
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
V = {"prediction_type": "v_prediction"}
ZERO = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", **V}

PNDM, DDIM, EULER, ANCESTRAL, DPM, LCM = (
    "PNDMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "LCMScheduler")


def table():
    """Rows of (class, steps, strength, fields). `eta` among the fields is not of the file: it goes to DDIM's steps."""
    sd1 = {**SD, "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False}
    ddim = {**SD, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    rows = [
        (PNDM, 20, 1, sd1), (PNDM, 50, 1, sd1), (PNDM, 5, 1, sd1), (PNDM, 1, 1, sd1), (PNDM, 2, 1, sd1), (PNDM, 20, 0.6, sd1), (PNDM, 20, 0.95, sd1),
        (PNDM, 20, 1, {**sd1, **V}), (PNDM, 20, 1, {**sd1, "timestep_spacing": "linspace", "set_alpha_to_one": True}),
        (PNDM, 20, 1, {**sd1, "timestep_spacing": "trailing"}), (PNDM, 20, 1, {**SD}), (PNDM, 7, 1, {"beta_schedule": "linear"}), (PNDM, 30, 1, {**SD, **V}),
        (DDIM, 20, 1, ddim), (DDIM, 50, 1, ddim), (DDIM, 5, 1, ddim), (DDIM, 1, 1, ddim), (DDIM, 20, 0.6, ddim),
        (DDIM, 20, 1, {}), (DDIM, 20, 1, {**SD, "clip_sample_range": 2.5}), (DDIM, 20, 1, {**ddim, **V}), (DDIM, 20, 1, {**ddim, "prediction_type": "sample"}),
        (DDIM, 20, 1, {**ddim, "timestep_spacing": "linspace"}), (DDIM, 20, 1, {**ddim, "timestep_spacing": "trailing"}),
        (DDIM, 20, 1, {**ddim, **ZERO}), (DDIM, 20, 1, {**ddim, "beta_schedule": "squaredcos_cap_v2"}),
        (DDIM, 20, 1, {**SD, "thresholding": True, "sample_max_value": 3.0, "dynamic_thresholding_ratio": 0.9}),
        (DDIM, 10, 1, {"trained_betas": [0.001 + 0.0002 * i for i in range(100)], "num_train_timesteps": 100, "clip_sample": False}),
        (DDIM, 12, 1, {**ddim, "num_train_timesteps": 500}),
        (EULER, 20, 1, SD), (EULER, 50, 1, SD), (EULER, 5, 1, SD), (EULER, 1, 1, SD), (EULER, 20, 0.6, SD),
        (EULER, 30, 1, {**SD, "timestep_spacing": "leading", "steps_offset": 1}), (EULER, 20, 1, {**SD, "timestep_spacing": "trailing"}),
        (EULER, 20, 1, {**SD, **V}), (EULER, 20, 1, {**SD, "prediction_type": "sample"}), (EULER, 20, 1, {**SD, **ZERO}),
        (EULER, 20, 1, {**SD, "use_karras_sigmas": True}), (EULER, 20, 0.4, {**SD, "use_karras_sigmas": True}),
        (EULER, 20, 1, {**SD, "use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 10.0}),
        (EULER, 20, 1, {**SD, "use_exponential_sigmas": True}), (EULER, 20, 1, {**SD, "interpolation_type": "log_linear"}),
        (EULER, 20, 1, {**SD, **V, "timestep_type": "continuous", "use_karras_sigmas": True}), (EULER, 20, 1, {**SD, "final_sigmas_type": "sigma_min"}),
        (ANCESTRAL, 20, 1, SD), (ANCESTRAL, 50, 1, SD), (ANCESTRAL, 5, 1, SD), (ANCESTRAL, 20, 0.6, SD), (ANCESTRAL, 20, 1, {**SD, **V}),
        (ANCESTRAL, 20, 1, {**SD, "timestep_spacing": "leading", "steps_offset": 1}), (ANCESTRAL, 20, 1, {**SD, **ZERO}),
        (DPM, 20, 1, SD), (DPM, 50, 1, SD), (DPM, 5, 1, SD), (DPM, 1, 1, SD), (DPM, 20, 0.6, SD), (DPM, 10, 0.5, SD),
        (DPM, 20, 1, {**SD, "timestep_spacing": "leading", "steps_offset": 1}), (DPM, 20, 1, {**SD, "timestep_spacing": "trailing"}),
        (DPM, 20, 1, {**SD, **V}), (DPM, 20, 1, {**SD, "prediction_type": "sample"}), (DPM, 20, 1, {**SD, **ZERO}),
        (DPM, 20, 1, {**SD, "use_karras_sigmas": True}), (DPM, 12, 1, {**SD, "use_karras_sigmas": True, "solver_order": 3}),
        (DPM, 20, 1, {**SD, "use_exponential_sigmas": True}), (DPM, 20, 1, {**SD, "use_lu_lambdas": True}),
        (DPM, 20, 1, {**SD, "solver_order": 1}), (DPM, 20, 1, {**SD, "solver_order": 3}), (DPM, 8, 1, {**SD, "solver_order": 3}),
        (DPM, 20, 1, {**SD, "solver_type": "heun"}), (DPM, 20, 1, {**SD, "euler_at_final": True, "final_sigmas_type": "sigma_min"}),
        (DPM, 10, 1, {**SD, "lower_order_final": False, "final_sigmas_type": "sigma_min"}), (DPM, 10, 1, {**SD, "lower_order_final": False}),
        (DPM, 20, 1, {**SD, "beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}),
        (DPM, 20, 1, {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1, "use_karras_sigmas": True}),
        (DPM, 20, 1, {**SD, "thresholding": True, "sample_max_value": 2.0}),
    ]
    rows += [(EULER, 20, 1, {**SD, "use_beta_sigmas": True}), (EULER, 7, 0.6, {**SD, **V, "use_beta_sigmas": True}), (DPM, 20, 1, {**SD, "use_beta_sigmas": True}), (DPM, 50, 1, {**SD, "use_beta_sigmas": True})]
    for kind in ("dpmsolver", "sde-dpmsolver", "sde-dpmsolver++"):
        for solver in ("midpoint", "heun"):
            rows.append((DPM, 20, 1, {**SD, "algorithm_type": kind, "solver_type": solver, "final_sigmas_type": "sigma_min"}))
    rows += [
        (DPM, 20, 1, {**SD, "algorithm_type": "dpmsolver", "solver_order": 3, "final_sigmas_type": "sigma_min"}),
        (DPM, 20, 1, {**SD, **V, "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
        (DPM, 20, 1, {**SD, "algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
        (LCM, 4, 1, {}), (LCM, 8, 1, {}), (LCM, 1, 1, {}), (LCM, 20, 1, {}), (LCM, 8, 0.5, {}), (LCM, 4, 1, V), (LCM, 4, 1, {"prediction_type": "sample"}),
        (LCM, 4, 1, {"clip_sample": True}), (LCM, 4, 1, {"original_inference_steps": 100, "timestep_scaling": 7.0}), (LCM, 7, 1, {**V, "rescale_betas_zero_snr": True}),
        (LCM, 4, 1, {"thresholding": True, "sample_max_value": 2.0}),
        (DDIM, 20, 1, {**ddim, "eta": 1.0}), (DDIM, 10, 1, {**ddim, "eta": 0.3}), (DDIM, 20, 0.6, {**ddim, "eta": 0.5}), (DDIM, 20, 1, {"eta": 1.0}),
        (DDIM, 20, 1, {**ddim, **V, "timestep_spacing": "trailing", "eta": 1.0}), (DDIM, 10, 1, {**ddim, **ZERO, "eta": 0.7}),
        (DDIM, 20, 1, {**ddim, "prediction_type": "sample", "eta": 1.0}),
    ]
    return rows


def walk(scheduler, steps, strength, eta, outs, noise):
    """One picture's way, as diffusers' pipelines lead it."""
    given = iter(noise)
    module = importlib.import_module(type(scheduler).__module__)
    module.randn_tensor = lambda *a, **k: next(given)
    scheduler.set_timesteps(steps)
    begin = max(steps - min(int(steps * strength), steps), 0)
    times = scheduler.timesteps[begin:]
    x = noise[-1] * scheduler.init_noise_sigma
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    if begin:
        x = scheduler.add_noise(outs[-1], noise[-1], times[:1])
    path, scaled = [x], []
    for i, t in enumerate(times):
        given = iter(noise[i:])
        scaled.append(scheduler.scale_model_input(x, t))
        x = scheduler.step(outs[i], t, x, return_dict=False, **({"eta": eta} if eta else {}))[0]
        path.append(x)
    flat = lambda xs: np.stack([np.asarray(x, dtype=np.float32).reshape(-1) for x in xs])
    return {"times": np.asarray(times, dtype=np.float32), "initial": np.float32(scheduler.init_noise_sigma), "scaled": flat(scaled), "x": flat(path)}


def train(config, outs, noise):
    """What training sees: diffusers' DDPM scheduler, whose tables are those of the others."""
    keep = ("beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr", "num_train_timesteps")
    d = diffusers.DDPMScheduler(**{k: config[k] for k in keep if config.get(k) is not None})
    n = len(d.alphas_cumprod)
    at = torch.tensor([0, 1, n // 2, n - 1])
    x, e = outs[:4].reshape(4, *SHAPE[1:]), noise[:4].reshape(4, *SHAPE[1:])
    return {"alphas": d.alphas_cumprod[at].numpy(), "noised": d.add_noise(x, e, at).reshape(4, -1).numpy(), "velocity": d.get_velocity(x, e, at).reshape(4, -1).numpy()}


def main(out):
    out = pathlib.Path(out)
    g = torch.Generator().manual_seed(7)
    outs, noise = torch.randn(60, *SHAPE, generator=g), torch.randn(60, *SHAPE, generator=g)
    arrays = {"outs": outs.reshape(60, -1).numpy(), "noise": noise.reshape(60, -1).numpy()}
    cases = []
    for i, (name, steps, strength, fields) in enumerate(table()):
        fields, eta = {k: v for k, v in fields.items() if k != "eta"}, fields.get("eta", 0)
        scheduler = getattr(diffusers, name).from_config(fields)
        config = {k: v for k, v in json.loads(scheduler.to_json_string()).items()}
        arrays |= {f"{i}.{k}": v for k, v in (walk(scheduler, steps, strength, eta, outs, noise) | train(config, outs, noise)).items()}
        cases.append({"steps": steps, "strength": strength, **({"eta": eta} if eta else {}), "config": config})
    (out / "cases.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
    np.savez_compressed(out / "golden.npz", **arrays)


main(sys.argv[1])
