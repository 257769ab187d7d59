// Package schedule holds diffusion's noise schedules and the samplers that walk them, as pure Go
// over numbers: no graphs, no images. They are those of diffusers, read from its
// scheduler_config.json, and each step gives diffusers' numbers where the noise is the same.
//
// A [Schedule] is what training needs: how much of a picture is left at each timestep, the noised
// picture, the target of the loss. A [Sampler] is one picture's way from noise back: the timesteps
// that the network is asked at, and what becomes of the picture at each.
package schedule
