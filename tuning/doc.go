// Package tuning learns prompts: recipes, training graphs with their gradients, optimisers,
// schedules, the loop and its checkpoints, and evaluation. It knows bundles and dataset
// versions; it stores nothing and knows no jobs. See docs/methods.md for what each method is.
package tuning
